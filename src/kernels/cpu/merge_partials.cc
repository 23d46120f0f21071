// Plain code: two multiplications an element, far from anything's bottleneck.
#include "kernels/cpu/merge_partials.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/checked_math.h"

namespace lamina::kernels::cpu {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// One head of one token. The identity on either side leaves the other's bits untouched.
void merge_row(float* into, float& into_lse, const float* from, float from_lse, int64_t count) {
  if (from_lse == kNegativeInfinity) return;
  if (into_lse == kNegativeInfinity) {
    std::copy(from, from + count, into);
    into_lse = from_lse;
    return;
  }
  const float top = std::max(into_lse, from_lse);
  const float into_weight = std::exp(into_lse - top);
  const float from_weight = std::exp(from_lse - top);
  const float total = into_weight + from_weight;
  const float into_share = into_weight / total;
  const float from_share = from_weight / total;
  for (int64_t i = 0; i < count; ++i) into[i] = into[i] * into_share + from[i] * from_share;
  into_lse = top + std::log(total);
}

}  // namespace

void merge_partials(const AttentionPartial& into, const AttentionPartial& from, ThreadPool& pool) {
  const auto merge_tokens = [&into, &from](int64_t begin, int64_t end) {
    const int64_t head_dim = into.out.shape[2];
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < into.out.shape[1]; ++head) {
        merge_row(into.out.row<float>(t) + head * head_dim,
                  into.lse.row<float>(t)[head],
                  from.out.row<float>(t) + head * head_dim,
                  from.lse.row<float>(t)[head],
                  head_dim);
      }
    }
  };
  constexpr int64_t kMinElements = 16 * 1024;  // some microseconds: worth waking a thread for
  pool.parallel_for(
      into.out.shape[0], ceil_div(kMinElements, into.out.row_elements()), merge_tokens);
}

}  // namespace lamina::kernels::cpu
