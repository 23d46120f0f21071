#include "kv/head_partition.h"

#include <algorithm>

#include "base/check.h"

namespace lamina {

std::vector<HeadRange> split_heads(int32_t num_kv_heads, int32_t num_workers) {
  LAMINA_CHECK_GE(num_workers, 1);
  return split_heads(num_kv_heads, std::vector<double>(static_cast<size_t>(num_workers), 1.0));
}

// Heads are dealt one at a time to whoever would then be the least late.
std::vector<HeadRange> split_heads(int32_t num_kv_heads, std::span<const double> speeds) {
  LAMINA_CHECK_GE(num_kv_heads, 1);
  LAMINA_CHECK(!speeds.empty());
  speeds = speeds.first(std::min(speeds.size(), static_cast<size_t>(num_kv_heads)));
  std::vector<int32_t> counts(speeds.size(), 1);
  for (auto left = num_kv_heads - static_cast<int32_t>(counts.size()); left > 0; --left) {
    size_t next = 0;
    for (size_t i = 1; i < counts.size(); ++i) {
      if ((counts[i] + 1) / speeds[i] < (counts[next] + 1) / speeds[next]) next = i;
    }
    ++counts[next];
  }
  std::vector<HeadRange> ranges;
  ranges.reserve(counts.size());
  int32_t begin = 0;
  for (const int32_t count : counts) {
    ranges.push_back({begin, begin + count});
    begin += count;
  }
  return ranges;
}

}  // namespace lamina
