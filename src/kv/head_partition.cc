#include "kv/head_partition.h"

#include <algorithm>

#include "base/check.h"

namespace lamina {

std::vector<HeadRange> split_heads(int32_t num_kv_heads, int32_t num_workers) {
  LAMINA_CHECK_GE(num_kv_heads, 1);
  LAMINA_CHECK_GE(num_workers, 1);
  const int32_t num_ranges = std::min(num_kv_heads, num_workers);
  const int32_t share = num_kv_heads / num_ranges;
  const int32_t num_larger = num_kv_heads % num_ranges;
  std::vector<HeadRange> ranges;
  int32_t begin = 0;
  for (int32_t i = 0; i < num_ranges; ++i) {
    const int32_t end = begin + share + (i < num_larger ? 1 : 0);
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

}  // namespace lamina
