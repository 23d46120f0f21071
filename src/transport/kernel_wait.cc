#include "transport/kernel_wait.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <ctime>

#include "base/check.h"

namespace lamina {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "the kernel sees a plain word");

// The kernel's struct futex_waitv, system call and flag, which headers before Linux 5.16 lack. The
// number is the same on x86-64 and arm64.
struct WaitvEntry {
  uint64_t seen;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
static_assert(sizeof(WaitvEntry) == 24);
constexpr long kSysFutexWaitv = 449;
constexpr uint32_t kFutex32 = 2;

timespec to_timespec(Duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  return {.tv_sec = seconds.count(), .tv_nsec = (duration - seconds).count()};
}

}  // namespace

// Nowhere FUTEX_PRIVATE_FLAG: words are shared between processes.
void wake_sleepers(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void sleep_on_word(const FutexWord& word, Duration at_most) {
  const timespec timeout = to_timespec(at_most);
  ::syscall(SYS_futex, word.word, FUTEX_WAIT, word.seen, &timeout, nullptr, 0);
}

bool sleep_on_words(std::span<const FutexWord> words, Duration at_most) {
  // Of the thread, as a seccomp filter is.
  thread_local bool is_missing = false;
  if (is_missing) return false;
  LAMINA_CHECK_LE(words.size(), kMaxFutexWords);
  std::array<WaitvEntry, kMaxFutexWords> entries;
  for (size_t i = 0; i < words.size(); ++i) {
    entries[i] = {.seen = words[i].seen,
                  .address = reinterpret_cast<uintptr_t>(words[i].word),
                  .flags = kFutex32,
                  .reserved = 0};
  }
  // Unlike the other two, this call takes a point in time.
  const timespec until = to_timespec(steady_clock().now().time_since_epoch() + at_most);
  const long result =
      ::syscall(kSysFutexWaitv, entries.data(), words.size(), 0, &until, CLOCK_MONOTONIC);
  is_missing = result < 0 && (errno == ENOSYS || errno == EPERM);
  return !is_missing;
}

void sleep_on_descriptors(std::span<pollfd> descriptors, Duration at_most) {
  const timespec timeout = to_timespec(at_most);
  const int num_ready = ::ppoll(descriptors.data(), descriptors.size(), &timeout, nullptr);
  if (num_ready > 0) return;
  for (pollfd& descriptor : descriptors) descriptor.revents = 0;
}

}  // namespace lamina
