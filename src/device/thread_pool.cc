#include "device/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "device/topology.h"

namespace lamina {
namespace {

// Long enough to bridge the gap between two operators of a step, short enough not to starve a
// neighbour's process.
constexpr auto kSpinTime = std::chrono::microseconds(20);

void cpu_relax() {
  __builtin_ia32_pause();
}

template <typename Condition>
bool spin_until(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      cpu_relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, std::vector<int> cpus) : cpus_(std::move(cpus)) {
  LAMINA_CHECK_GE(num_threads, 1);
  const auto count = static_cast<size_t>(num_threads);
  LAMINA_CHECK(cpus_.empty() || cpus_.size() == count);
  workers_.reserve(count - 1);
  for (size_t i = 1; i < count; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::bind_submitter() const {
  if (!cpus_.empty()) bind_this_thread(std::span(cpus_).first(1));
}

void ThreadPool::parallel_for(int64_t count,
                              int64_t grain,
                              const std::function<void(int64_t, int64_t)>& task) {
  if (count <= 0) return;
  LAMINA_DCHECK(grain > 0);
  if (workers_.empty() || count <= grain) {
    task(0, count);
    return;
  }
  const std::lock_guard turn(submit_mutex_);
  {
    const std::lock_guard lock(mutex_);
    job_ = {&task, count, grain};
    next_begin_.store(0, std::memory_order_relaxed);
    num_busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    if (num_blocked_ > 0) work_ready_.notify_all();
  }
  run_ranges();
  // Every worker must have left run_ranges() before `task` and job_ may change.
  while (num_busy_.load(std::memory_order_acquire) > 0) {
    if (!spin_until([this] { return num_busy_.load(std::memory_order_acquire) == 0; })) {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::run_ranges() {
  // Long ranges first, which read memory in one go, then ever shorter ones, so that all threads end
  // at about the same time.
  const auto num_threads = static_cast<int64_t>(workers_.size()) + 1;
  const int64_t shortest = std::max(job_.grain, job_.count / (32 * num_threads));
  int64_t begin = next_begin_.load(std::memory_order_relaxed);
  while (begin < job_.count) {
    const int64_t size = std::max(shortest, (job_.count - begin) / (2 * num_threads));
    const int64_t end = std::min(begin + size, job_.count);
    if (!next_begin_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
    (*job_.task)(begin, end);
    begin = next_begin_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::worker_loop(size_t idx) {
  if (!cpus_.empty()) bind_this_thread(std::span(cpus_).subspan(idx, 1));
  uint64_t seen = 0;
  while (true) {
    const auto has_news = [&] {
      return generation_.load(std::memory_order_acquire) != seen ||
             stopping_.load(std::memory_order_relaxed);
    };
    if (!spin_until(has_news)) {
      std::unique_lock lock(mutex_);
      ++num_blocked_;
      work_ready_.wait(lock, has_news);
      --num_blocked_;
    }
    if (stopping_) return;
    seen = generation_.load(std::memory_order_acquire);
    run_ranges();
    num_busy_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace lamina
