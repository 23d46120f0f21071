// One order of summation for a width, whatever else is in the batch (docs/adr/0009).
#include "kernels/cpu/norm.h"

#include <cmath>

#include "kernels/cpu/row_loop.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// clang-format on

#include "base/check.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

// Zeroes the lanes that lie past the end of a row.
HWY_INLINE F32Vector only_upto(F32Vector v, int64_t count) {
  const F32Tag d;
  if (count >= kLanes) return v;
  return hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(count)), v);
}

template <typename T>
HWY_INLINE float mean_of(const T* x, int64_t count) {
  F32Vector sum = hn::Zero(F32Tag());
  for (int64_t i = 0; i < count; i += kLanes) sum = hn::Add(sum, load_upto(x + i, count - i));
  return hn::GetLane(hn::SumOfLanes(F32Tag(), sum)) / static_cast<float>(count);
}

// Mean of (x - centre)^2.
template <typename T>
HWY_INLINE float mean_square(const T* x, float centre, int64_t count) {
  const F32Vector shift = hn::Set(F32Tag(), centre);
  F32Vector squares = hn::Zero(F32Tag());
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector v = only_upto(hn::Sub(load_upto(x + i, count - i), shift), count - i);
    squares = hn::MulAdd(v, v, squares);
  }
  return hn::GetLane(hn::SumOfLanes(F32Tag(), squares)) / static_cast<float>(count);
}

// bias may be null.
template <typename T>
HWY_NOINLINE void norm_row(
    const T* x, const T* weight, const T* bias, const NormAttrs& attrs, T* out, int64_t count) {
  const F32Tag d;
  const float mean = attrs.kind == NormKind::kLayer ? mean_of(x, count) : 0.0F;
  const float factor = 1.0F / std::sqrt(mean_square(x, mean, count) + attrs.eps);
  const F32Vector shift = hn::Set(d, mean);
  const F32Vector scale = hn::Set(d, factor);
  const F32Vector offset = hn::Set(d, attrs.weight_offset);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const F32Vector normed = hn::Mul(hn::Sub(load_upto(x + i, left), shift), scale);
    F32Vector result = hn::Mul(normed, hn::Add(load_upto(weight + i, left), offset));
    if (bias != nullptr) result = hn::Add(result, load_upto(bias + i, left));
    store_upto(result, out + i, left);
  }
}

template <typename T>
void norm_typed(const NormArgs& args, ThreadPool& pool) {
  const int64_t width = args.x.shape[-1];
  const int64_t weight_elements = args.weight.shape.num_elements();  // width, or H * width
  const T* weight = args.weight.as<T>();
  const T* bias = args.bias.empty() ? nullptr : args.bias.as<T>();
  cpu::for_each_row(args.x, pool, [&](int64_t t) {
    for (int64_t begin = 0; begin < args.x.row_elements(); begin += width) {
      const int64_t at = begin % weight_elements;
      norm_row(args.x.row<T>(t) + begin,
               weight + at,
               bias == nullptr ? nullptr : bias + at,
               args.attrs,
               args.out.row<T>(t) + begin,
               width);
    }
  });
}

template <typename T>
void add_norm_typed(const AddNormArgs& args, ThreadPool& pool) {
  const int64_t width = args.a.shape[1];
  const T* bias = args.bias.empty() ? nullptr : args.bias.as<T>();
  cpu::for_each_row(args.a, pool, [&](int64_t t) {
    const T* a = args.a.row<T>(t);
    const T* b = args.b.row<T>(t);
    T* sum = args.out.row<T>(t);
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = width - i;
      store_upto(hn::Add(load_upto(a + i, left), load_upto(b + i, left)), sum + i, left);
    }
    norm_row(sum, args.weight.as<T>(), bias, args.attrs, sum + width, width);
  });
}

void norm(const NormArgs& args, ThreadPool& pool) {
  switch (args.x.dtype) {
    case DType::kF32:
      return norm_typed<float>(args, pool);
    case DType::kF16:
      return norm_typed<Float16>(args, pool);
    case DType::kBF16:
      return norm_typed<BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "norm of a dtype that is no float");
}

void add_norm(const AddNormArgs& args, ThreadPool& pool) {
  switch (args.a.dtype) {
    case DType::kF32:
      return add_norm_typed<float>(args, pool);
    case DType::kF16:
      return add_norm_typed<Float16>(args, pool);
    case DType::kBF16:
      return add_norm_typed<BFloat16>(args, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "add_norm of a dtype that is no float");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(norm);
HWY_EXPORT(add_norm);

void norm(const NormArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(norm)(args, pool);
}
void add_norm(const AddNormArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(add_norm)(args, pool);
}

}  // namespace lamina::kernels::cpu
#endif
