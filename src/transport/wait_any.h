// wait_any: sleeps until any of several awaited messages is there, on endpoints of any host
// backend. For the outermost loop of a process that serves several peers: an attention worker with
// several model replicas, an engine with several workers. It finds that there is news, not which:
// the loop polls what it awaits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "transport/endpoint.h"
#include "transport/wake_flag.h"

namespace lamina {

struct AwaitedMessage {
  Endpoint* endpoint = nullptr;
  SlotIdx slot = 0;
  uint64_t seq = 0;
};

// Blocks until poll() of any awaited message is not pending (ready or down) or `wake` is raised;
// at most until `deadline`, then kDeadlineExceeded. Everything is looked at once even when the
// deadline has passed. `wake` is not cleared. `awaited` may be empty.
//
// Polls for policy.spin, then sleeps in the kernel, woken by the first news:
//   - regions (loopback, shm) by futex_waitv over the slots' bells and the flag;
//   - sockets (tcp) by ppoll over sockets and events, also until unsent bytes can leave.
// In three cases no one sleep covers everything. Then naps are of 200 us at most, and that, with
// the kernel's timer slack of 50 us, is how late a message may be noticed:
//   - regions and sockets in one call: naps alternate between bells and descriptors;
//   - more than 128 bells, or 128 descriptors, the flag's and two for each tcp endpoint counted;
//   - several bells where futex_waitv is missing (before Linux 5.16, or an old seccomp profile).
//
// abort() of any awaited endpoint ends the wait. Every 50 ms of sleep, and at the deadline, regions
// are asked whether their peer's process still lives; a loop that is kept busy by the others must
// not rely on it. Endpoints that are not awaited are not driven: a loop that awaits nothing of one
// adds what add_unsent() says, else bytes that the socket did not take at once stay here.
//
// From the thread that owns the endpoints. Allocates nothing. CHECKs that every endpoint can be
// waited on.
Status wait_any(std::span<const AwaitedMessage> awaited,
                Deadline deadline,
                WaitPolicy policy,
                WakeFlag* wake = nullptr);

// Awaits on `endpoint`, if its socket has not taken all that was committed, what never comes: the
// wait sends it, and goes on.
void add_unsent(Endpoint& endpoint, std::vector<AwaitedMessage>& awaited);

}  // namespace lamina
