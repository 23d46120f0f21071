// The kernel's ways to sleep until there is news: on a futex word, on several, on descriptors. Thin
// wrappers over system calls; who must be told before a sleep, and what to look at after it, is the
// caller's. A sleep may end early, for no reason: callers look and sleep again.
#pragma once

#include <poll.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"

namespace lamina {

// Words that sleep_on_words() takes at most: the kernel's limit.
inline constexpr size_t kMaxFutexWords = 128;

// A sleep on it ends when `word` is not `seen`, or is woken. The word may be shared with another
// process.
struct FutexWord {
  std::atomic<uint32_t>* word = nullptr;
  uint32_t seen = 0;
};

// Ends every sleep on the word that is under way in the kernel.
void wake_sleepers(std::atomic<uint32_t>& word);

void sleep_on_word(const FutexWord& word, Duration at_most);

// Sleeps until any of 1 to kMaxFutexWords words has news. False, at once, where the kernel lacks
// futex_waitv (before 5.16) or a seccomp profile older than the call forbids it; asked once a
// thread.
[[nodiscard]] bool sleep_on_words(std::span<const FutexWord> words, Duration at_most);

// Sleeps until a descriptor has one of its events; `revents` is set.
void sleep_on_descriptors(std::span<pollfd> descriptors, Duration at_most);

}  // namespace lamina
