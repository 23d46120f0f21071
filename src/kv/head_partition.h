// Head partition: which KV heads each attention worker owns under a head split. Plain arithmetic.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lamina {

// KV heads [begin, end) and with them the query heads [begin * G, end * G), G = num_heads /
// num_kv_heads.
struct HeadRange {
  int32_t begin = 0;
  int32_t end = 0;

  [[nodiscard]] int32_t count() const { return end - begin; }
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// Splits `num_kv_heads` over at most `num_workers` workers, as evenly as it goes, larger shares
// first: 3 heads over 2 workers is {0, 2}, {2, 3}. With more workers than heads only num_kv_heads
// ranges are returned: the rest stand by.
std::vector<HeadRange> split_heads(int32_t num_kv_heads, int32_t num_workers);
// The same for workers of different speeds: each gets the whole heads nearest to its share, at
// least one.
std::vector<HeadRange> split_heads(int32_t num_kv_heads, std::span<const double> speeds);

}  // namespace lamina
