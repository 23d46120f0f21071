// GpuGraph: work of a stream, captured once and enqueued again by a single call. It reads and
// writes the addresses that it was captured with, which outlive it. Move-only.
#pragma once

#include <functional>

#include "base/result.h"
#include "device/stream.h"

namespace lamina {

class GpuGraph {
 public:
  // Captures, without running it, what `enqueue` enqueues on `stream`: that neither waits nor
  // allocates, and has run before, so that nothing is loaded now. Errors: enqueue's; kInternal if
  // the capture fails; kUnimplemented in a build without CUDA.
  static Result<GpuGraph> capture(StreamView stream, const std::function<Status()>& enqueue);

  GpuGraph(GpuGraph&& other) noexcept;
  GpuGraph& operator=(GpuGraph&& other) noexcept;
  ~GpuGraph();

  // Enqueues all of it. kInternal if that fails.
  [[nodiscard]] Status launch(StreamView stream) const;

 private:
  explicit GpuGraph(void* raw) : raw_(raw) {}

  void* raw_ = nullptr;  // cudaGraphExec_t
};

}  // namespace lamina
