// Rendezvous: one TCP connection between the two sides of an endpoint, of which the one listens and
// the other connects, and which both present what the control plane told them. Setup code: throws
// Error. Used by the backends tcp and nccl.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "transport/blob.h"

namespace lamina {

class Rendezvous {
 public:
  // Listens on any port of `config.host` if this side does. Throws Error kUnavailable.
  explicit Rendezvous(const EndpointConfig& config);

  // Where this side is to be found, for the other: a port, or that it connects.
  [[nodiscard]] const std::string& locator() const { return locator_; }
  // Once: the connection, introduced and non-blocking. `own` is this side's token, `peers` and
  // `peer_locator` are the other's. Throws Error: kInvalidArgument for no such locator,
  // kUnauthenticated, kUnavailable, kDeadlineExceeded.
  FileHandle meet(const std::string& peer_locator,
                  const Token& own,
                  const Token& peers,
                  Deadline deadline);

 private:
  FileHandle accept(const std::string& peer_locator,
                    const Token& own,
                    const Token& peers,
                    Deadline deadline);
  FileHandle connect(const std::string& peer_locator,
                     const Token& own,
                     const Token& peers,
                     Deadline deadline);

  PeerId self_;
  PeerId peer_;
  std::string host_;
  FileHandle listener_;  // none: this side connects
  std::string locator_;
};

}  // namespace lamina
