#include "transport/measure/peer.h"

#include <sys/stat.h>

#include <cstdio>

#include "base/error.h"
#include "transport/measure/device_trips.h"
#include "transport/measure/host_trips.h"

namespace lamina::measure {

namespace {

bool is_socket(int descriptor) {
  struct stat about{};
  return ::fstat(descriptor, &about) == 0 && S_ISSOCK(about.st_mode);
}

}  // namespace

int run_peer() {
  if (!is_socket(kPeerSocket)) {
    std::fputs("peer: not to be started by hand: see `lamina bench transport`\n", stderr);
    return 1;
  }
  try {
    const auto role = receive_struct<PeerRole>(kPeerSocket, Deadline::after(kSetUpTime));
    if (role.is_device) {
      answer_as_device(role);
    } else {
      answer_as_host(role);
    }
    return 0;
  } catch (const Error& error) {
    // The asking process is done, or gone: the socket's end is how this one ends.
    if (error.code() == StatusCode::kUnavailable) return 0;
    std::fprintf(stderr, "peer: %s\n", error.what());
  }
  return 1;
}

}  // namespace lamina::measure
