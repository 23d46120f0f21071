// Linked instead of nccl_round_trips.cc where the build has no NCCL.
#include "nccl_round_trips.h"

namespace lamina::bench {

Result<std::vector<double>> nccl_round_trips_us(uint64_t /*size_bytes*/,
                                                uint32_t /*num_rounds*/,
                                                uint64_t /*num_replays*/) {
  return unimplemented("this build of lamina has no NCCL");
}

}  // namespace lamina::bench
