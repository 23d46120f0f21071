// DeviceEnd: one side of round trips over a link that devices use by themselves: a thread of a CPU
// (cpu_end.h) or a GPU (gpu_end.h), driven by DeviceCommands. Confined to one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "transport/cuda_p2p/link.h"
#include "transport/cuda_p2p/step_guard.h"

namespace lamina::measure {

// How a GPU makes round trips. A CPU is as it were always within one launch.
enum class Drive : uint32_t { kPersistent, kGraph };

// Of a captured graph.
inline constexpr uint32_t kGraphTrips = 20;
// Larger lines than the transport would use, so that they can be measured.
inline constexpr cuda_p2p::Limits kTripLimits{.lines_bytes = 128 << 10};

// How round trips are made.
struct TripKind {
  Drive drive = Drive::kPersistent;
  cuda_p2p::Form form = cuda_p2p::Form::kLines;
  uint32_t part_bytes = 0;  // 0: as Limits have it

  // Of messages of 1 byte or more.
  [[nodiscard]] cuda_p2p::Plan plan(uint32_t size_bytes) const;
  [[nodiscard]] bool can_carry(uint32_t size_bytes) const {
    return form == cuda_p2p::Form::kPushed || size_bytes <= kTripLimits.lines_bytes;
  }
};

// What both sides are to do: `count` round trips in one launch, or as many replays of a graph of
// kGraphTrips, after a run that is not captured. Messages 1, 2, ... of the epoch.
struct DeviceCommand {
  TripKind kind;
  uint32_t size_bytes = 0;
  uint32_t epoch = 0;  // another than that of any earlier command
  uint64_t count = 0;

  [[nodiscard]] cuda_p2p::Plan plan() const { return kind.plan(size_bytes); }
};

struct DeviceEndConfig {
  Device device;
  cuda_p2p::Place place = cuda_p2p::Place::kHostMemory;
  bool asks = false;
  uint32_t max_bytes = 0;  // of a message
  Duration max_wait{};
};

class DeviceEnd {
 public:
  DeviceEnd(const DeviceEnd&) = delete;
  DeviceEnd& operator=(const DeviceEnd&) = delete;
  virtual ~DeviceEnd() = default;

  // Both sides make ready for a command before one of them runs it.
  virtual Status begin(const DeviceCommand& command) = 0;
  // Does this side's part, and waits for it. The error of the wait that failed, if one did;
  // kDataLoss if what came last is not what was sent.
  virtual Status run(const DeviceCommand& command) = 0;
  // Of the last command, as the asking side: microseconds of round trips, in a graph of the mean of
  // its own each; in any order.
  [[nodiscard]] const std::vector<double>& times_us() const { return times_us_; }
  // What ends the waits.
  [[nodiscard]] virtual cuda_p2p::StepGuard& guard() = 0;

 protected:
  DeviceEnd() = default;

  std::vector<double> times_us_;
};

// The same on both sides.
cuda_p2p::LinkConfig link_config(const DeviceEndConfig& config);

// What all messages of round trips hold, each chunk another; and whether these chunks are those.
cuda_p2p::Chunk trip_chunk(uint32_t idx);
Status check_trip_chunks(const cuda_p2p::Chunk* chunks, uint32_t count);

}  // namespace lamina::measure
