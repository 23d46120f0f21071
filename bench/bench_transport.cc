// Round trips between two processes of this machine over shm and tcp: one sends, the other answers
// with as many bytes, as model and attention worker do once a layer. Every message is written from
// the sender's own memory and copied out by the receiver, so that both backends do the same work.
// Prints the median and the 99th percentile of each size. Usage: lamina_bench_transport [SPIN_US]
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "transport/endpoint.h"

namespace lamina {
namespace {

constexpr std::array<size_t, 4> kSizes = {8, 16 << 10, 64 << 10, 1 << 20};
constexpr Duration kTimePerSize = std::chrono::milliseconds(700);
constexpr size_t kWarmUp = 50;
constexpr size_t kMaxRounds = 20'000;

Deadline soon() {
  return Deadline::after(std::chrono::seconds(10));
}

EndpointConfig make_config(TransportKind kind, bool listens) {
  const std::vector<size_t> slots(kSizes.begin(), kSizes.end());
  return {.kind = kind,
          .self = {.id = listens ? 1U : 2U, .epoch = 1},
          .peer = {.id = listens ? 2U : 1U, .epoch = 1},
          .receive_slots = slots,
          .send_slots = slots,
          .listens = listens};
}

std::unique_ptr<Endpoint> connect(const EndpointConfig& config, int control) {
  const auto pending = prepare_endpoint(config);
  const std::string& blob = pending->blob();
  LAMINA_CHECK_EQ(::send(control, blob.data(), blob.size(), 0), static_cast<ssize_t>(blob.size()));
  std::array<char, 1024> text{};
  const ssize_t got = ::recv(control, text.data(), text.size(), 0);
  LAMINA_CHECK(got > 0, "the other process is gone");
  return pending->complete(std::string(text.data(), static_cast<size_t>(got)), soon());
}

// Reads the message in `slot` as its user would.
void consume(const Endpoint& endpoint, SlotIdx slot, std::vector<std::byte>& into) {
  const std::span<const std::byte> payload = endpoint.payload(slot);
  std::copy(payload.begin(), payload.end(), into.begin());
}

// Answers size after size, until the peer leaves.
void answer(Endpoint& endpoint, WaitPolicy policy) {
  for (SlotIdx slot = 0; slot < kSizes.size(); ++slot) {
    std::vector<std::byte> message(kSizes[slot]);
    for (uint64_t seq = 1;; ++seq) {
      if (!endpoint.wait(slot, seq, soon(), policy).ok()) return;
      // A message without payload ends the measurement of a size.
      const bool is_last = endpoint.payload(slot).empty();
      consume(endpoint, slot, message);
      if (!endpoint.put(slot, std::span(message).first(is_last ? 0 : kSizes[slot]), seq).ok())
        return;
      if (is_last) break;
    }
  }
}

// Times of the round trips of one size, sorted.
std::vector<Duration> measure(Endpoint& endpoint, SlotIdx slot, WaitPolicy policy) {
  const Clock& clock = steady_clock();
  std::vector<std::byte> message(kSizes[slot]);
  std::vector<Duration> times;
  uint64_t seq = 0;
  const auto round_trip = [&](size_t size_bytes) {
    throw_if_error(endpoint.put(slot, std::span(message).first(size_bytes), ++seq));
    throw_if_error(endpoint.wait(slot, seq, soon(), policy));
    consume(endpoint, slot, message);
  };
  for (size_t i = 0; i < kWarmUp; ++i) round_trip(kSizes[slot]);
  const Deadline end = Deadline::after(kTimePerSize);
  while (times.size() < kMaxRounds && !end.has_passed()) {
    const TimePoint begin = clock.now();
    round_trip(kSizes[slot]);
    times.push_back(clock.now() - begin);
  }
  round_trip(0);
  std::sort(times.begin(), times.end());
  return times;
}

double to_us(Duration time) {
  return static_cast<double>(time.count()) * 1e-3;
}

void bench(TransportKind kind, WaitPolicy policy) {
  std::array<int, 2> control{};
  LAMINA_CHECK_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control.data()), 0);
  const FileHandle ours(control[0]);
  FileHandle theirs(control[1]);
  const pid_t child = ::fork();
  LAMINA_CHECK_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    answer(*connect(make_config(kind, true), theirs.get()), policy);
    ::_exit(0);
  }
  theirs.reset();
  {
    const auto endpoint = connect(make_config(kind, false), ours.get());
    for (SlotIdx slot = 0; slot < kSizes.size(); ++slot) {
      const std::vector<Duration> times = measure(*endpoint, slot, policy);
      fmt::print("{:>5} {:>9} B {:>9.1f} us median {:>9.1f} us p99 {:>7} rounds\n",
                 transport_name(kind),
                 kSizes[slot],
                 to_us(times[times.size() / 2]),
                 to_us(times[times.size() * 99 / 100]),
                 times.size());
    }
  }
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  try {
    lamina::init_logging(lamina::LogLevel::kWarning, "bench");
    lamina::WaitPolicy policy;
    if (argc > 1) policy.spin = std::chrono::microseconds(std::strtoul(argv[1], nullptr, 10));
    fmt::print("round trips, spin {} us before a wait blocks\n", policy.spin.count() / 1000);
    lamina::bench(lamina::TransportKind::kShm, policy);
    lamina::bench(lamina::TransportKind::kTcp, policy);
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
