// Linked instead of measure/nccl/ where the build has no NCCL.
#include "base/error.h"
#include "transport/measure/nccl/nccl_trips.h"

namespace lamina::measure {

std::string NcclTrips::why_missing() {
  return "this build of lamina has no NCCL";
}

NcclTrips::NcclTrips() {
  throw Error(StatusCode::kUnimplemented, why_missing());
}

NcclTrips::~NcclTrips() = default;

Result<std::vector<double>> NcclTrips::times_us(uint32_t /*size_bytes*/, Duration /*time*/) {
  return unimplemented(why_missing());
}

}  // namespace lamina::measure
