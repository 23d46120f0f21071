// Handshake of a data connection. The connector says who it is, whom it looks for and the token of
// the listener's blob; the listener answers with the token of the connector's. Whoever does not
// know the token learns nothing but that the connection closes. Setup code: throws Error.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/file.h"
#include "transport/blob.h"

namespace lamina {

inline constexpr uint32_t kHelloMagic = 0x484E4D4C;       // "LMNH"
inline constexpr uint32_t kHelloReplyMagic = 0x524E4D4C;  // "LMNR"
inline constexpr uint16_t kTcpVersion = 1;

struct Hello {
  uint32_t magic = kHelloMagic;
  uint16_t version = kTcpVersion;
  uint16_t reserved = 0;
  PeerId from;
  PeerId to;
  Token token{};  // of the listener
};
static_assert(sizeof(Hello) == 56);

struct HelloReply {
  uint32_t magic = kHelloReplyMagic;
  uint16_t version = kTcpVersion;
  uint16_t reserved = 0;
  Token token{};  // of the connector
};
static_assert(sizeof(HelloReply) == 24);

// Listener: accepts connections until one says exactly `expected`, answers `reply`, and returns it.
// Others are closed, as are those that say nothing for a while or are too many at once. Throws
// kDeadlineExceeded.
FileHandle accept_peer(int listener,
                       const Hello& expected,
                       const HelloReply& reply,
                       Deadline deadline);

// Connector: says `hello` on a fresh connection and waits for `expected`. Throws kUnauthenticated
// if the other side hangs up or answers anything else, kDeadlineExceeded.
void introduce(int socket, const Hello& hello, const HelloReply& expected, Deadline deadline);

}  // namespace lamina
