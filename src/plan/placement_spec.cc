#include "plan/placement_spec.h"

#include <fmt/format.h>

namespace lamina {

std::string PlacementSpec::to_string() const {
  const std::string kv =
      is_quantized(kv_dtype) ? fmt::format(", {} KV", dtype_name(kv_dtype)) : std::string();
  if (is_colocated()) return fmt::format("colocated TP {}{}", tensor_parallel, kv);
  return fmt::format("{} x TP {} + {} attention, n = {}, {}{}{}",
                     num_replicas,
                     tensor_parallel,
                     num_attention_workers,
                     num_micro_batches,
                     partition_name(partition),
                     overlap ? ", overlap" : "",
                     kv);
}

}  // namespace lamina
