#include "transport/tcp/rendezvous.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "base/error.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"

namespace lamina {
namespace {

// The connector's locator, in place of a port.
constexpr const char* kConnects = "connects";

}  // namespace

Rendezvous::Rendezvous(const EndpointConfig& config)
    : self_(config.self), peer_(config.peer), host_(config.host), locator_(kConnects) {
  if (!config.listens) return;
  listener_ = listen_on(host_, 0);
  locator_ = std::to_string(local_port(listener_.get()));
}

FileHandle Rendezvous::meet(const std::string& peer_locator,
                            const Token& own,
                            const Token& peers,
                            Deadline deadline) {
  return listener_ ? accept(peer_locator, own, peers, deadline)
                   : connect(peer_locator, own, peers, deadline);
}

FileHandle Rendezvous::accept(const std::string& peer_locator,
                              const Token& own,
                              const Token& peers,
                              Deadline deadline) {
  if (peer_locator != kConnects) {
    throw Error(StatusCode::kInvalidArgument, "both sides of a tcp endpoint listen");
  }
  const Hello expected{.from = peer_, .to = self_, .token = own};
  const FileHandle listener = std::move(listener_);  // closes when the peer is in
  return accept_peer(listener.get(), expected, {.token = peers}, deadline);
}

FileHandle Rendezvous::connect(const std::string& peer_locator,
                               const Token& own,
                               const Token& peers,
                               Deadline deadline) {
  uint16_t port = 0;
  const char* end = peer_locator.data() + peer_locator.size();
  const auto [parsed, error] = std::from_chars(peer_locator.data(), end, port);
  if (error != std::errc() || parsed != end || port == 0) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("'{}' in the peer's blob is no port: one side of a tcp endpoint must "
                            "listen",
                            peer_locator));
  }
  FileHandle socket = connect_to(host_, port, deadline);
  const Hello hello{.from = self_, .to = peer_, .token = peers};
  introduce(socket.get(), hello, {.token = own}, deadline);
  return socket;
}

}  // namespace lamina
