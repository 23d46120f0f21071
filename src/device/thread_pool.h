// ThreadPool: the CPU device's execution resource. One pool per role and process, or one for the
// model worker and the attention workers of a process, sized once at start; kernels split their
// work over it with parallel_for. Workers spin for a bounded time after each job, then block, so
// that idle pools on shared cores cost nothing. Several threads may submit: their jobs take turns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lamina {

class ThreadPool {
 public:
  // `num_threads` >= 1 counts the submitting thread, which takes a share: a pool of one starts no
  // thread. Thread i stays on hardware thread cpus[i], of which there are as many as threads, or
  // none: then the kernel places them. One that cannot be bound is placed by the kernel too.
  explicit ThreadPool(int num_threads, std::vector<int> cpus = {});
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  [[nodiscard]] int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Keeps the calling thread on cpus[0], the submitter's place. For threads that do nothing but
  // submit: a thread hands its place on to the threads that it starts. Nothing without `cpus`.
  void bind_submitter() const;

  // Calls task(begin, end) over disjoint ranges that cover [0, count), each at least `grain` long
  // save the last, and returns when all are done. Ranges are handed out dynamically. `task` must
  // not throw, block or submit to this pool. Results must not depend on where ranges are cut. Waits
  // for the job of another thread; one that needs no helpers runs at once.
  void parallel_for(int64_t count,
                    int64_t grain,
                    const std::function<void(int64_t, int64_t)>& task);

 private:
  struct Job {
    const std::function<void(int64_t, int64_t)>* task = nullptr;
    int64_t count = 0;
    int64_t grain = 1;
  };

  void worker_loop(size_t idx);
  void run_ranges();

  std::vector<int> cpus_;    // by thread, the submitter first; or empty
  std::mutex submit_mutex_;  // held from a job's start to its end
  std::mutex mutex_;
  std::condition_variable work_ready_;
  Job job_;                              // written before generation_ is raised
  std::atomic<int64_t> next_begin_{0};   // first index of the job that nobody has taken
  std::atomic<uint64_t> generation_{0};  // one per job
  std::atomic<int> num_busy_{0};         // workers that have not finished the current job
  std::atomic<bool> stopping_{false};
  int num_blocked_ = 0;  // guarded by mutex_
  std::vector<std::thread> workers_;
};

}  // namespace lamina
