#include "transport/measure/cuda/replay_times.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"

namespace lamina::measure {
namespace {

// An event with a time.
class TimedEvent {
 public:
  TimedEvent() { cuda::throw_if_error(cudaEventCreate(&raw_), "creating a CUDA event"); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  ~TimedEvent() { cudaEventDestroy(raw_); }

  Status record(StreamView stream) {
    return cuda::to_status(cudaEventRecord(raw_, cuda::raw(stream)), "taking a GPU's time");
  }
  Result<double> us_since(const TimedEvent& begin) const {
    float ms = 0.0F;
    LAMINA_RETURN_IF_ERROR(
        cuda::to_status(cudaEventElapsedTime(&ms, begin.raw_, raw_), "reading a GPU's time"));
    return static_cast<double>(ms) * 1e3;
  }

 private:
  cudaEvent_t raw_ = nullptr;
};

}  // namespace

Result<std::vector<double>> time_replays(const GpuGraph& graph, uint64_t count, StreamView stream) {
  std::vector<TimedEvent> events(count + 1);
  LAMINA_RETURN_IF_ERROR(events[0].record(stream));
  for (uint64_t i = 1; i <= count; ++i) {
    LAMINA_RETURN_IF_ERROR(graph.launch(stream));
    LAMINA_RETURN_IF_ERROR(events[i].record(stream));
  }
  LAMINA_RETURN_IF_ERROR(synchronize(stream));
  std::vector<double> times_us;
  for (uint64_t i = 1; i <= count; ++i) {
    LAMINA_ASSIGN_OR_RETURN(const double us, events[i].us_since(events[i - 1]));
    times_us.push_back(us);
  }
  std::sort(times_us.begin(), times_us.end());
  return times_us;
}

}  // namespace lamina::measure
