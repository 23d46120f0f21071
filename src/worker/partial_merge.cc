#include "worker/partial_merge.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "kernels/attention.h"

namespace lamina {
namespace {

template <typename T>
void round_rows(const TensorView& from, const TensorView& to) {
  const int64_t count = from.shape[1] * from.shape[2];
  for (int64_t row = 0; row < from.shape[0]; ++row) {
    const float* values = from.row<float>(row);
    std::transform(values, values + count, to.row<T>(row), [](float x) { return from_f32<T>(x); });
  }
}

}  // namespace

PartialMerge::PartialMerge(int64_t max_tokens,
                           int64_t num_heads,
                           int64_t value_dim,
                           StreamView stream)
    : num_heads_(num_heads),
      value_dim_(value_dim),
      stream_(stream),
      out_memory_(MemoryKind::kHost,
                  static_cast<size_t>(max_tokens * num_heads * value_dim) * sizeof(float)),
      lse_memory_(MemoryKind::kHost, static_cast<size_t>(max_tokens * num_heads) * sizeof(float)) {}

void PartialMerge::begin(int64_t num_tokens, std::span<const float> sinks) {
  out_ = {out_memory_.data(), DType::kF32, {num_tokens, num_heads_, value_dim_}};
  lse_ = {lse_memory_.data(), DType::kF32, {num_tokens, num_heads_}};
  std::fill_n(out_.row<float>(0), num_tokens * num_heads_ * value_dim_, 0.0F);
  for (int64_t row = 0; row < num_tokens; ++row) {
    float* lse = lse_.row<float>(row);
    if (sinks.empty()) {
      std::fill_n(lse, num_heads_, -std::numeric_limits<float>::infinity());
    } else {
      std::copy(sinks.begin(), sinks.end(), lse);
    }
  }
}

Status PartialMerge::add(int64_t row,
                         const HeadRange& heads,
                         const TensorView& out,
                         const TensorView& lse) {
  const int64_t count = out.shape[0];
  return kernels::merge_partials({.out = out_.rows(row, count).columns(heads.begin, heads.count()),
                                  .lse = lse_.rows(row, count).columns(heads.begin, heads.count())},
                                 {.out = out, .lse = lse},
                                 stream_);
}

void PartialMerge::store(int64_t row, const HeadRange& heads, const TensorView& out) const {
  const TensorView from = out_.rows(row, out.shape[0]).columns(heads.begin, heads.count());
  switch (out.dtype) {
    case DType::kF32:
      return round_rows<float>(from, out);
    case DType::kF16:
      return round_rows<Float16>(from, out);
    case DType::kBF16:
      return round_rows<BFloat16>(from, out);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "attention output of a dtype that is no float");
}

}  // namespace lamina
