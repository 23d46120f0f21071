#include "kernels/cpu/softmax.h"

#include <limits>

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

cpu::LogitSummary clean_logits(float* logits, int64_t count) {
  const F32Tag d;
  const F32Vector lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const F32Vector largest = hn::Set(d, std::numeric_limits<float>::max());
  F32Vector top = lowest;
  cpu::LogitSummary summary;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    F32Vector v = load_upto(logits + i, left);
    auto is_finite = hn::IsFinite(v);
    if (left < kLanes) {  // what pads the tail is no logit
      const auto is_real = hn::FirstN(d, static_cast<size_t>(left));
      is_finite = hn::And(is_finite, is_real);
      v = hn::IfThenElse(is_real, v, lowest);
    }
    summary.has_finite |= !hn::AllFalse(d, is_finite);
    v = hn::Min(hn::IfThenElse(hn::IsNaN(v), lowest, v), largest);
    top = hn::Max(top, v);
    store_upto(v, logits + i, left);
  }
  summary.top = hn::GetLane(hn::MaxOfLanes(d, top));
  return summary;
}

void softmax_weights(
    const float* logits, int64_t count, float top, float temperature, float* weights) {
  const F32Tag d;
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector shifted = hn::Sub(load_upto(logits + i, count - i), hn::Set(d, top));
    const F32Vector power = hn::Div(shifted, hn::Set(d, temperature));
    store_upto(hn::Exp(d, power), weights + i, count - i);
  }
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(clean_logits);
HWY_EXPORT(softmax_weights);

LogitSummary clean_logits(float* logits, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(clean_logits)(logits, count);
}
void softmax_weights(
    const float* logits, int64_t count, float top, float temperature, float* weights) {
  HWY_DYNAMIC_DISPATCH(softmax_weights)(logits, count, top, temperature, weights);
}

}  // namespace lamina::kernels::cpu
#endif
