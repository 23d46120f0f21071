// GpuCollective: one rank's place among the GPUs of this process that give each other their parts
// of a value, for rooms that see nothing of CUDA or NCCL. Nothing waits on the host, so that a
// gather may be captured in a GpuGraph. Every rank makes the same calls in the same order. Confined
// to one thread, but for abort(). All ranks' outlive the graphs of all ranks that they were
// captured in.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "device/stream.h"

namespace lamina {

class GpuCollective {
 public:
  // Of all ranks: the r-th is for the r-th stream, each of a GPU of its own. Throws Error
  // kUnavailable without NCCL's library or where NCCL refuses, kUnimplemented in a build without
  // NCCL.
  static std::vector<std::unique_ptr<GpuCollective>> connect(std::span<const StreamView> streams);

  GpuCollective(const GpuCollective&) = delete;
  GpuCollective& operator=(const GpuCollective&) = delete;
  // Waits for such graphs to go.
  ~GpuCollective();

  // Enqueues on this rank's stream: `all` is what ranks 0, 1, ... passed as `mine`, `size_bytes`
  // each, one after the other. Both lie in its GPU's memory. kUnavailable after abort().
  Status all_gather(const void* mine, void* all, size_t size_bytes);
  // From any thread, at any time, without waiting: gathers under way end, with anything in `all`,
  // and so do those of graphs that are launched later. Every rank is to be aborted then, and none
  // can be used again.
  void abort();

 private:
  struct Impl;
  explicit GpuCollective(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina
