#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/row_loop.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// clang-format on

#include "base/check.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

// One head. x and out may be the same.
template <typename T>
HWY_NOINLINE void rotate_halves(
    const T* x, const float* cosines, const float* sines, int64_t half, T* out) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t left = half - i;
    const F32Vector a = load_upto(x + i, left);
    const F32Vector b = load_upto(x + half + i, left);
    const F32Vector cosine = load_upto(cosines + i, left);
    const F32Vector sine = load_upto(sines + i, left);
    store_upto(hn::Sub(hn::Mul(a, cosine), hn::Mul(b, sine)), out + i, left);
    store_upto(hn::Add(hn::Mul(b, cosine), hn::Mul(a, sine)), out + half + i, left);
  }
}

// The same for neighbours (2i, 2i + 1), kLanes pairs at a time.
template <typename T>
HWY_NOINLINE void rotate_neighbours(
    const T* x, const float* cosines, const float* sines, int64_t half, T* out) {
  float values[2 * kLanes];
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t num_pairs = std::min(kLanes, half - i);
    for (int64_t begin = 0; begin < 2 * num_pairs; begin += kLanes) {
      store_f32(load_upto(x + 2 * i + begin, 2 * num_pairs - begin), values + begin);
    }
    for (int64_t k = 0; k < num_pairs; ++k) {
      const float a = values[2 * k];
      const float b = values[2 * k + 1];
      values[2 * k] = a * cosines[i + k] - b * sines[i + k];
      values[2 * k + 1] = b * cosines[i + k] + a * sines[i + k];
    }
    for (int64_t begin = 0; begin < 2 * num_pairs; begin += kLanes) {
      store_upto(load_f32(values + begin), out + 2 * i + begin, 2 * num_pairs - begin);
    }
  }
}

template <typename T>
void rope_typed(const TensorView& x,
                const TensorView& table,
                bool interleaved,
                const TensorView& out,
                ThreadPool& pool) {
  const int64_t head_dim = x.shape[2];
  const int64_t half = table.shape[1] / 2;
  cpu::for_each_row(x, pool, [&](int64_t t) {
    const float* angles = table.row<float>(t);
    for (int64_t begin = 0; begin < x.row_elements(); begin += head_dim) {
      const T* from = x.row<T>(t) + begin;
      T* to = out.row<T>(t) + begin;
      if (interleaved) {
        rotate_neighbours(from, angles, angles + half, half, to);
      } else {
        rotate_halves(from, angles, angles + half, half, to);
      }
      if (from != to) std::copy(from + 2 * half, from + head_dim, to + 2 * half);
    }
  });
}

void rope(const TensorView& x,
          const TensorView& table,
          bool interleaved,
          const TensorView& out,
          ThreadPool& pool) {
  switch (x.dtype) {
    case DType::kF32:
      return rope_typed<float>(x, table, interleaved, out, pool);
    case DType::kF16:
      return rope_typed<Float16>(x, table, interleaved, out, pool);
    case DType::kBF16:
      return rope_typed<BFloat16>(x, table, interleaved, out, pool);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "rope on a dtype that is no float");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(rope);

void rope(const TensorView& x,
          const TensorView& table,
          bool interleaved,
          const TensorView& out,
          ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(rope)(x, table, interleaved, out, pool);
}

void rope_table(const TensorView& positions,
                std::span<const float> inv_freq,
                float magnitude,
                const TensorView& out,
                ThreadPool& pool) {
  const auto fill_row = [&](int64_t t) {
    float* cosines = out.row<float>(t);
    float* sines = cosines + inv_freq.size();
    const auto position = static_cast<float>(*positions.row<int32_t>(t));
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      // The angle is an f32 product, as it is where models are trained.
      const float angle = position * inv_freq[i];
      cosines[i] = std::cos(angle) * magnitude;
      sines[i] = std::sin(angle) * magnitude;
    }
  };
  constexpr int64_t kMinRows = 8;  // some hundred cosines
  pool.parallel_for(positions.shape[0], kMinRows, [&fill_row](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) fill_row(t);
  });
}

}  // namespace lamina::kernels::cpu
#endif
