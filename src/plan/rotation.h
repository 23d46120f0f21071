// Rotation: which replica of the model runs which slice of which micro-batch (rotational staggered
// pipelining, PAPER 7). Slice k of micro-batch j, counted on through its steps, runs on replica
// (j + k n) mod R. The last slice of a step and the first of the next count as one: no attention
// stands between them, and the token stays where it was sampled. Plain arithmetic.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>

namespace lamina {

struct Rotation {
  int32_t num_micro_batches = 1;
  int32_t num_replicas = 1;

  // Of a step whose slice 0 runs on replica `first`.
  [[nodiscard]] int32_t replica_of(int32_t first, int32_t slice_idx) const {
    const int64_t steps = int64_t{slice_idx} * num_micro_batches;
    return static_cast<int32_t>((first + steps) % num_replicas);
  }
  // Slice 0 of a micro-batch's very first step.
  [[nodiscard]] int32_t initial_replica(int32_t micro_batch) const {
    return micro_batch % num_replicas;
  }
  // From one slice of a micro-batch on a replica to the next there.
  [[nodiscard]] int32_t stride() const {
    return num_replicas / std::gcd(num_micro_batches, num_replicas);
  }
  // The first slice from `from` on that runs on `replica`, of a step without an end whose slice 0
  // runs on `first`; none if others run them all.
  [[nodiscard]] std::optional<int32_t> next_slice(int32_t replica,
                                                  int32_t first,
                                                  int32_t from) const {
    for (int32_t slice = from; slice < from + stride(); ++slice) {
      if (replica_of(first, slice) == replica) return slice;
    }
    return std::nullopt;
  }
  // To whom `replica` hands carried values on, and from whom it has them: itself if no other runs
  // slices of its micro-batches.
  [[nodiscard]] int32_t replica_after(int32_t replica) const { return replica_of(replica, 1); }
  [[nodiscard]] int32_t replica_before(int32_t replica) const {
    return replica_of(replica, stride() - 1);
  }
};

}  // namespace lamina
