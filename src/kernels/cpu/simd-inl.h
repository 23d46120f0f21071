// Vector helpers of the CPU kernels, compiled once per instruction set (Highway's foreach_target):
// conversion between the float dtypes and f32 vectors, and sums in a fixed order. Included inside
// the foreach_target part of the .cc files of this folder only. Pointers need the alignment of
// their element, no more: weights may lie in a mapped file.
#if defined(LAMINA_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_SIMD_INL_H_
#undef LAMINA_KERNELS_CPU_SIMD_INL_H_
#else
#define LAMINA_KERNELS_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32Tag = hn::ScalableTag<float>;
using F32Vector = hn::Vec<F32Tag>;
inline constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(F32Tag()));

// kLanes consecutive elements as f32.
HWY_INLINE F32Vector load_f32(const float* p) {
  return hn::LoadU(F32Tag(), p);
}
HWY_INLINE F32Vector load_f32(const BFloat16* p) {
  const hn::Rebind<uint16_t, F32Tag> d16;
  const hn::Rebind<uint32_t, F32Tag> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(F32Tag(), hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}
HWY_INLINE F32Vector load_f32(const Float16* p) {
  const hn::Rebind<hwy::float16_t, F32Tag> d16;
  const hn::Rebind<uint16_t, F32Tag> d_bits;
  const auto bits = hn::LoadU(d_bits, reinterpret_cast<const uint16_t*>(p));
  return hn::PromoteTo(F32Tag(), hn::BitCast(d16, bits));
}
// Codes of quantised caches, without their scale. Subnormals of e4m3 are f32's until the product,
// which is exact.
HWY_INLINE F32Vector load_f32(const int8_t* p) {
  const hn::Rebind<int8_t, F32Tag> d8;
  const hn::Rebind<int32_t, F32Tag> d32;
  return hn::ConvertTo(F32Tag(), hn::PromoteTo(d32, hn::LoadU(d8, p)));
}
HWY_INLINE F32Vector load_f32(const Float8E4M3* p) {
  const hn::Rebind<uint8_t, F32Tag> d8;
  const hn::Rebind<uint32_t, F32Tag> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p)));
  const auto magnitude = hn::ShiftLeft<20>(hn::And(bits, hn::Set(d32, 0x7FU)));
  const auto sign = hn::ShiftLeft<24>(hn::And(bits, hn::Set(d32, 0x80U)));
  const F32Vector number = hn::BitCast(F32Tag(), hn::Or(magnitude, sign));
  return hn::Mul(number, hn::Set(F32Tag(), 0x1p120F));
}

// 2 * kLanes consecutive elements as f32, in an order that depends on the dtype alone. For sums,
// where any order will do as long as both factors have the same: bf16 is cheapest to split into
// even and odd elements.
HWY_INLINE void load_pair(const float* p, F32Vector& a, F32Vector& b) {
  a = load_f32(p);
  b = load_f32(p + kLanes);
}
HWY_INLINE void load_pair(const BFloat16* p, F32Vector& a, F32Vector& b) {
  const hn::Repartition<uint16_t, F32Tag> d16;
  const hn::Repartition<uint32_t, F32Tag> d32;
  const auto pairs = hn::BitCast(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  a = hn::BitCast(F32Tag(), hn::ShiftLeft<16>(pairs));
  b = hn::BitCast(F32Tag(), hn::And(pairs, hn::Set(d32, 0xFFFF0000U)));
}
HWY_INLINE void load_pair(const Float16* p, F32Vector& a, F32Vector& b) {
  a = load_f32(p);
  b = load_f32(p + kLanes);
}

// One vector of load_pair(): 0 for a, 1 for b. Where registers are few: nothing else is kept.
template <int kHalf, typename T>
HWY_INLINE F32Vector load_half(const T* p) {
  return load_f32(p + kHalf * kLanes);
}
template <int kHalf>
HWY_INLINE F32Vector load_half(const BFloat16* p) {
  const hn::Repartition<uint16_t, F32Tag> d16;
  const hn::Repartition<uint32_t, F32Tag> d32;
  const auto pairs = hn::BitCast(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  if constexpr (kHalf == 0) {
    return hn::BitCast(F32Tag(), hn::ShiftLeft<16>(pairs));
  } else {
    return hn::BitCast(F32Tag(), hn::And(pairs, hn::Set(d32, 0xFFFF0000U)));
  }
}

// kLanes elements from f32, rounded to nearest even as to_bf16() and to_f16() do.
HWY_INLINE void store_f32(F32Vector v, float* p) {
  hn::StoreU(v, F32Tag(), p);
}
HWY_INLINE void store_f32(F32Vector v, BFloat16* p) {
  const hn::Rebind<uint16_t, F32Tag> d16;
  const hn::Rebind<uint32_t, F32Tag> d32;
  const hn::Rebind<int32_t, F32Tag> di32;
  const auto bits = hn::BitCast(d32, v);
  const auto upper = hn::ShiftRight<16>(bits);
  const auto is_odd = hn::And(upper, hn::Set(d32, 1U));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(d32, 0x7FFFU), is_odd)));
  const auto quiet_nan = hn::Or(upper, hn::Set(d32, 0x40U));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(v));
  const auto result = hn::IfThenElse(is_nan, quiet_nan, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, result)), d16, reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE void store_f32(F32Vector v, Float16* p) {
  const hn::Rebind<hwy::float16_t, F32Tag> d16;
  const hn::Rebind<uint16_t, F32Tag> d_bits;
  const auto halves = hn::DemoteTo(d16, v);
  hn::StoreU(hn::BitCast(d_bits, halves), d_bits, reinterpret_cast<uint16_t*>(p));
}

// The first `count` <= kLanes elements at `p`, zeros after them.
template <typename T>
HWY_INLINE F32Vector load_upto(const T* p, int64_t count) {
  if (count >= kLanes) return load_f32(p);
  T padded[kLanes] = {};
  std::copy(p, p + count, padded);
  return load_f32(padded);
}
// Stores the first min(count, kLanes) elements.
template <typename T>
HWY_INLINE void store_upto(F32Vector v, T* p, int64_t count) {
  if (count >= kLanes) return store_f32(v, p);
  T padded[kLanes];
  store_f32(v, padded);
  std::copy(padded, padded + count, p);
}

template <class D, class V>
HWY_INLINE auto fold_to_4_lanes(D /*tag*/, V v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return fold_to_4_lanes(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// sums[i] = sum of the lanes of v_i. The lanes of each are added in the same order, so a sum does
// not depend on its place among the four. A transposition: cheaper than four separate sums.
HWY_INLINE void sum_lanes_of_4(
    F32Vector v0, F32Vector v1, F32Vector v2, F32Vector v3, float* sums) {
  const F32Tag d;
  const hn::RepartitionToWide<F32Tag> wide;
  const auto pair01 =
      hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1)));
  const auto pair23 =
      hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3)));
  const auto lower = hn::BitCast(d, hn::InterleaveLower(wide, pair01, pair23));
  const auto upper = hn::BitCast(d, hn::InterleaveUpper(wide, pair01, pair23));
  hn::StoreU(fold_to_4_lanes(d, hn::Add(lower, upper)), hn::Full128<float>(), sums);
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LAMINA_KERNELS_CPU_SIMD_INL_H_
