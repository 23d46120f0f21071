#include "transport/nccl/agreement.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <span>
#include <string>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/tcp/socket.h"

namespace lamina::nccl {
namespace {

constexpr uint32_t kMagic = 0x434E4D4C;  // "LMNC"
constexpr uint32_t kVersion = 1;

struct Hello {
  uint32_t magic = kMagic;
  uint32_t version = kVersion;
  int32_t nccl_version = 0;
  uint32_t num_channels = 0;
  uint64_t receive_digest = 0;
  uint64_t send_digest = 0;
};
static_assert(sizeof(Hello) == 32);

uint64_t digest(const std::vector<uint32_t>& capacities) {
  return slots_digest(std::vector<size_t>(capacities.begin(), capacities.end()));
}

Hello make_hello(const Library& library, const LinkConfig& config) {
  Hello hello = {.num_channels = config.num_channels,
                 .receive_digest = digest(config.receive_slots),
                 .send_digest = digest(config.send_slots)};
  if (library.version(&hello.nccl_version) != ncclSuccess) {
    throw Error(StatusCode::kUnavailable, "NCCL does not tell its version");
  }
  return hello;
}

void check(const Hello& theirs, const Hello& ours) {
  if (theirs.magic != kMagic || theirs.version != kVersion) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("the other side speaks no version {} of this link", kVersion));
  }
  if (theirs.nccl_version != ours.nccl_version) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("the other side has NCCL {}, this one {}: they have to be the same",
                            theirs.nccl_version,
                            ours.nccl_version));
  }
  if (theirs.num_channels != ours.num_channels || theirs.receive_digest != ours.send_digest ||
      theirs.send_digest != ours.receive_digest) {
    throw Error(StatusCode::kInvalidArgument, "the two sides of a link have other slots");
  }
}

// Small enough for the buffer of any fresh socket.
void send_whole(int socket, std::span<const std::byte> bytes) {
  if (::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
      static_cast<ssize_t>(bytes.size())) {
    return;
  }
  throw Error(StatusCode::kUnavailable, "the other side of a link hung up");
}

void receive_whole(int socket, std::span<std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (!wait_for_events(socket, POLLIN, deadline)) {
      throw Error(StatusCode::kDeadlineExceeded, "the other side of a link said nothing in time");
    }
    const ssize_t got = ::recv(socket, bytes.data(), bytes.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) continue;
    if (got <= 0) throw Error(StatusCode::kUnavailable, "the other side of a link hung up");
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
}

}  // namespace

// Both say hello first: neither waits for the other to begin.
std::vector<ncclUniqueId> agree(const Library& library,
                                const LinkConfig& config,
                                int socket,
                                Deadline deadline) {
  const Hello ours = make_hello(library, config);
  send_whole(socket, std::as_bytes(std::span(&ours, 1)));
  Hello theirs;
  receive_whole(socket, std::as_writable_bytes(std::span(&theirs, 1)), deadline);
  check(theirs, ours);
  std::vector<ncclUniqueId> ids(config.num_channels);
  if (!config.listens) {
    receive_whole(socket, std::as_writable_bytes(std::span(ids)), deadline);
    return ids;
  }
  for (ncclUniqueId& id : ids) {
    const ncclResult_t made = library.unique_id(&id);
    if (made == ncclSuccess) continue;
    throw Error(StatusCode::kUnavailable,
                std::string("NCCL makes no id: ") + library.error_string(made));
  }
  send_whole(socket, std::as_bytes(std::span(ids)));
  return ids;
}

}  // namespace lamina::nccl
