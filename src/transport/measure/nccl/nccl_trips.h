// NcclTrips: the same round trips by NCCL's send and receive, in a captured graph on each of two
// GPUs of this process: what the transport is compared with. Confined to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

struct ncclComm;

namespace lamina::measure {

class NcclTrips {
 public:
  // Why there is no NCCL to measure, or empty.
  static std::string why_missing();

  // Between the first two GPUs. Throws Error kUnavailable where NCCL refuses, or what
  // why_missing() says.
  NcclTrips();
  NcclTrips(const NcclTrips&) = delete;
  NcclTrips& operator=(const NcclTrips&) = delete;
  ~NcclTrips();  // NOLINT(performance-trivially-destructible): not where there is NCCL

  // Microseconds of round trips, of the mean of a graph's each, sorted, for about `time`.
  // kDeadlineExceeded if they do not end: nothing more is to be measured then.
  Result<std::vector<double>> times_us(uint32_t size_bytes, Duration time);

 private:
  Result<std::vector<double>> replay(uint32_t size_bytes, uint64_t num_replays);
  void abort();

  static constexpr size_t kNumRanks = 2;
  std::array<ncclComm*, kNumRanks> comms_{};
  bool is_aborted_ = false;
};

}  // namespace lamina::measure
