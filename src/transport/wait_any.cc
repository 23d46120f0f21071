#include "transport/wait_any.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <limits>
#include <variant>

#include "base/check.h"
#include "transport/host_endpoint.h"
#include "transport/kernel_wait.h"

namespace lamina {
namespace {

// Whatever a caller asks for: beyond this a spin only takes the core from the peer it waits for.
constexpr Duration kMaxSpin = std::chrono::milliseconds(1);
// A sleep ends at least this often, so that a peer that died without a word is noticed.
constexpr Duration kMaxNap = std::chrono::milliseconds(50);
// The same when part of what is awaited cannot end the sleep: a compromise between the delay of a
// message and the cost of waking up for nothing.
constexpr Duration kMaxBlindNap = std::chrono::microseconds(200);
constexpr size_t kMaxDescriptors = 128;

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Between two polls of a spin: leave the memory bus alone, and now and then the core, which the
// peer may be waiting for.
void relax(uint32_t round) {
  constexpr uint32_t kPausesPerRound = 8;
  constexpr uint32_t kRoundsPerYield = 4;
  for (uint32_t i = 0; i < kPausesPerRound; ++i) cpu_pause();
  if (round % kRoundsPerYield == kRoundsPerYield - 1) ::sched_yield();
}

bool has_news(std::span<const AwaitedMessage> awaited, const WakeFlag* wake) {
  if (wake != nullptr && wake->is_raised()) return true;
  for (const AwaitedMessage& message : awaited) {
    if (message.endpoint->poll(message.slot, message.seq) != PollResult::kPending) return true;
  }
  // The poll of one slot reads from the socket what is there, also for a slot found pending before:
  // no descriptor will tell of it again.
  return std::any_of(awaited.begin(), awaited.end(), [](const AwaitedMessage& message) {
    return message.endpoint->received_seq(message.slot) >= message.seq;
  });
}

void check_peers(std::span<const AwaitedMessage> awaited) {
  for (const AwaitedMessage& message : awaited) message.endpoint->as_host_endpoint()->check_peer();
}

// One sleep. From its construction on, news rings: what came before must be looked for between
// construction and sleep().
class Nap {
 public:
  Nap(std::span<const AwaitedMessage> awaited, WakeFlag* wake) : awaited_(awaited), wake_(wake) {
    if (wake != nullptr) add_flag(*wake);
    for (const AwaitedMessage& message : awaited) {
      const WakeSource source = message.endpoint->as_host_endpoint()->begin_sleep(message.slot);
      std::visit([this](const auto& part) { add(part); }, source);
    }
  }
  Nap(const Nap&) = delete;
  Nap& operator=(const Nap&) = delete;
  ~Nap() {
    for (const AwaitedMessage& message : awaited_) {
      message.endpoint->as_host_endpoint()->end_sleep(message.slot);
    }
    if (wake_ != nullptr) wake_->end_sleep();
  }

  // Where there are both words and sockets, only one kind can be slept on.
  void sleep(Duration at_most, bool prefers_words) {
    const bool is_mixed = has_words_ && has_sockets_;
    if (is_mixed || overflows_) at_most = std::min(at_most, kMaxBlindNap);
    if (has_words_ && (prefers_words || !is_mixed)) {
      sleep_on(std::span(words_).first(num_words_), at_most);
    } else {
      sleep_on(std::span(descriptors_).first(num_descriptors_), at_most);
    }
  }

 private:
  void add_flag(WakeFlag& wake) {
    wake.begin_sleep();
    words_[num_words_++] = wake.word();
    descriptors_[num_descriptors_++] = {.fd = wake.event_fd(), .events = POLLIN, .revents = 0};
  }

  void add(const FutexWord& word) {
    has_words_ = true;
    if (num_words_ == words_.size()) {
      overflows_ = true;
    } else {
      words_[num_words_++] = word;
    }
  }

  void add(const WakeDescriptors& wakes) {
    if (has(wakes.socket)) return;  // another slot of the same endpoint
    has_sockets_ = true;
    if (num_descriptors_ + 2 > descriptors_.size()) {
      overflows_ = true;
      return;
    }
    descriptors_[num_descriptors_++] = {
        .fd = wakes.socket, .events = wakes.socket_events, .revents = 0};
    descriptors_[num_descriptors_++] = {.fd = wakes.abort_event, .events = POLLIN, .revents = 0};
  }

  [[nodiscard]] bool has(int socket) const {
    const auto used = std::span(descriptors_).first(num_descriptors_);
    return std::any_of(
        used.begin(), used.end(), [&](const pollfd& added) { return added.fd == socket; });
  }

  static void sleep_on(std::span<const FutexWord> words, Duration at_most) {
    if (words.size() == 1) {
      sleep_on_word(words.front(), at_most);
    } else if (!sleep_on_words(words, at_most)) {
      sleep_on_word(words.front(), std::min(at_most, kMaxBlindNap));
    }
  }

  void sleep_on(std::span<pollfd> descriptors, Duration at_most) {
    sleep_on_descriptors(descriptors, at_most);
    if (wake_ != nullptr && descriptors.front().revents != 0) wake_->drain_event();
  }

  std::span<const AwaitedMessage> awaited_;
  WakeFlag* wake_;
  // The flag's first.
  std::array<FutexWord, kMaxFutexWords> words_;
  std::array<pollfd, kMaxDescriptors> descriptors_;
  size_t num_words_ = 0;
  size_t num_descriptors_ = 0;
  bool has_words_ = false;  // of endpoints
  bool has_sockets_ = false;
  bool overflows_ = false;
};

bool spin_for_news(std::span<const AwaitedMessage> awaited,
                   const WakeFlag* wake,
                   TimePoint spin_end) {
  bool found = false;
  for (uint32_t round = 0; !found && steady_clock().now() < spin_end; ++round) {
    relax(round);
    found = has_news(awaited, wake);
  }
  return found;
}

}  // namespace

Status wait_any(std::span<const AwaitedMessage> awaited,
                Deadline deadline,
                WaitPolicy policy,
                WakeFlag* wake) {
  for (const AwaitedMessage& message : awaited) {
    LAMINA_CHECK(message.endpoint->as_host_endpoint() != nullptr, "nothing may wait on it");
  }
  if (has_news(awaited, wake)) return {};
  const TimePoint start = steady_clock().now();
  const TimePoint spin_end = std::min(start + std::min(policy.spin, kMaxSpin), deadline.when());
  bool found = spin_for_news(awaited, wake, spin_end);
  TimePoint peers_checked = start;
  for (bool prefers_words = true; !found; prefers_words = !prefers_words) {
    const Duration left = deadline.remaining();
    // Short enough for std::string to hold without allocating: loops time out as a matter of
    // course.
    if (left == Duration::zero()) return deadline_exceeded("nothing in time");
    {
      Nap nap(awaited, wake);
      if (has_news(awaited, wake)) return {};
      nap.sleep(std::min(left, kMaxNap), prefers_words);
    }
    const TimePoint now = steady_clock().now();
    if (now >= std::min(peers_checked + kMaxNap, deadline.when())) {
      check_peers(awaited);
      peers_checked = now;
    }
    found = has_news(awaited, wake);
  }
  return {};
}

void add_unsent(Endpoint& endpoint, std::vector<AwaitedMessage>& awaited) {
  if (!endpoint.has_unsent()) return;
  awaited.push_back(
      {.endpoint = &endpoint, .slot = 0, .seq = std::numeric_limits<uint64_t>::max()});
}

}  // namespace lamina
