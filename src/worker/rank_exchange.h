// RankExchange: how the tensor-parallel ranks of a model replica, threads of one process, give each
// other their parts: through host memory where they compute on CPUs, from GPU to GPU where each has
// one. As CollectivePort: confined to the rank's thread, but for abort().
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "exec/slice_executor.h"

namespace lamina {

class RankExchange : public CollectivePort {
 public:
  // From any thread, without waiting: exchanges under way and later ones end. On GPUs all ranks are
  // to be aborted then; those that had been enqueued bring anything.
  virtual void abort() = 0;
};

// By rank: streams[r] is rank r's, and all are of one kind of device. `timeout` bounds how long
// ranks wait for each other's calls; what a GPU waits for, once enqueued, is the caller's to bound.
// Graphs that exchanges were captured in, on any rank, are destroyed before the first exchange.
// Throws Error: what GpuCollective and Buffer throw.
std::vector<std::unique_ptr<RankExchange>> connect_ranks(std::span<const StreamView> streams,
                                                         size_t max_bytes,
                                                         Duration timeout);

}  // namespace lamina
