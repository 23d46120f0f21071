#include "worker/tile_worker.h"

namespace lamina {
namespace {

Status wait_for_news(std::span<TileWorker* const> workers,
                     std::vector<AwaitedMessage>& awaited,
                     WaitPolicy policy,
                     Duration most) {
  awaited.clear();
  for (const TileWorker* worker : workers) worker->add_awaited(awaited);
  Status waited = wait_any(awaited, Deadline::after(most), policy);
  return waited.code() == StatusCode::kDeadlineExceeded ? Status() : waited;
}

}  // namespace

// Waits of all workers' stats grow by what it took.
Status TileWorker::serve(std::span<TileWorker* const> workers,
                         const std::atomic<bool>& should_stop,
                         WaitPolicy policy,
                         Duration idle_check) {
  std::vector<AwaitedMessage> awaited;
  while (!should_stop) {
    bool did_something = false;
    for (TileWorker* worker : workers) {
      LAMINA_ASSIGN_OR_RETURN(const bool did, worker->step());
      did_something |= did;
    }
    if (did_something) continue;
    const TimePoint begin = steady_clock().now();
    LAMINA_RETURN_IF_ERROR(wait_for_news(workers, awaited, policy, idle_check));
    const Duration time = steady_clock().now() - begin;
    for (TileWorker* worker : workers) worker->stats_.wait_ns += time.count();
  }
  return {};
}

}  // namespace lamina
