#include "kernels/cpu/pointwise.h"

#include <cmath>
#include <cstring>

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pointwise.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

inline constexpr int64_t kMinElements = 16 * 1024;  // microseconds: worth waking a thread for

// Calls body(t) for every index of axis 0 of x. A body captures one reference, so that making a
// std::function of it allocates nothing.
template <typename Body>
void for_each_row(const TensorView& x, ThreadPool& pool, const Body& body) {
  pool.parallel_for(x.shape[0],
                    ceil_div(kMinElements, std::max<int64_t>(1, x.row_elements())),
                    [&body](int64_t begin, int64_t end) {
                      for (int64_t t = begin; t < end; ++t) body(t);
                    });
}

struct Add {
  static HWY_INLINE F32Vector apply(F32Vector a, F32Vector b) { return hn::Add(a, b); }
};
struct Mul {
  static HWY_INLINE F32Vector apply(F32Vector a, F32Vector b) { return hn::Mul(a, b); }
};
struct Silu {
  static HWY_INLINE F32Vector apply(F32Vector x, F32Vector /*unused*/) {
    const F32Tag d;
    // exp() is good up to 104; beyond 88 the result is nothing beside f32's least normal number.
    const F32Vector power = hn::Min(hn::Neg(x), hn::Set(d, 88.0F));
    return hn::Div(x, hn::Add(hn::Set(d, 1.0F), hn::Exp(d, power)));
  }
};

template <typename Op, typename T>
HWY_NOINLINE void map_row(const T* a, const T* b, T* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector result = Op::apply(load_upto(a + i, count - i), load_upto(b + i, count - i));
    store_upto(result, out + i, count - i);
  }
}

template <typename Op, typename T>
void map_typed(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  for_each_row(a, pool, [&](int64_t t) {
    map_row<Op>(a.row<T>(t), b.row<T>(t), out.row<T>(t), a.row_elements());
  });
}

template <typename Op>
void map(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  switch (a.dtype) {
    case DType::kF32:
      return map_typed<Op, float>(a, b, out, pool);
    case DType::kF16:
      return map_typed<Op, Float16>(a, b, out, pool);
    case DType::kBF16:
      return map_typed<Op, BFloat16>(a, b, out, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "element-wise on a dtype that is no float");
}

void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  map<Add>(a, b, out, pool);
}
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  map<Mul>(a, b, out, pool);
}
void silu(const TensorView& x, const TensorView& out, ThreadPool& pool) {
  map<Silu>(x, x, out, pool);
}

template <typename T>
HWY_NOINLINE void norm_row(const T* x, const T* weight, float eps, T* out, int64_t count) {
  const F32Tag d;
  F32Vector squares = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector v = load_upto(x + i, count - i);
    squares = hn::MulAdd(v, v, squares);
  }
  const float mean = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(count);
  const F32Vector factor = hn::Set(d, 1.0F / std::sqrt(mean + eps));
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector normed = hn::Mul(load_upto(x + i, count - i), factor);
    store_upto(hn::Mul(normed, load_upto(weight + i, count - i)), out + i, count - i);
  }
}

template <typename T>
void rms_norm_typed(const TensorView& x,
                    const TensorView& weight,
                    float eps,
                    const TensorView& out,
                    ThreadPool& pool) {
  const int64_t width = x.shape[-1];
  for_each_row(x, pool, [&](int64_t t) {
    for (int64_t begin = 0; begin < x.row_elements(); begin += width) {
      norm_row(x.row<T>(t) + begin, weight.as<T>(), eps, out.row<T>(t) + begin, width);
    }
  });
}

void rms_norm(const TensorView& x,
              const TensorView& weight,
              float eps,
              const TensorView& out,
              ThreadPool& pool) {
  switch (x.dtype) {
    case DType::kF32:
      return rms_norm_typed<float>(x, weight, eps, out, pool);
    case DType::kF16:
      return rms_norm_typed<Float16>(x, weight, eps, out, pool);
    case DType::kBF16:
      return rms_norm_typed<BFloat16>(x, weight, eps, out, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "rms_norm on a dtype that is no float");
}

// One head. x and out may be the same.
template <typename T>
HWY_NOINLINE void rotate_head(
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

template <typename T>
void rope_typed(const TensorView& x,
                const TensorView& table,
                const TensorView& out,
                ThreadPool& pool) {
  const int64_t head_dim = x.shape[2];
  const int64_t half = table.shape[1] / 2;
  for_each_row(x, pool, [&](int64_t t) {
    const float* angles = table.row<float>(t);
    for (int64_t begin = 0; begin < x.row_elements(); begin += head_dim) {
      const T* from = x.row<T>(t) + begin;
      T* to = out.row<T>(t) + begin;
      rotate_head(from, angles, angles + half, half, to);
      if (from != to) std::copy(from + 2 * half, from + head_dim, to + 2 * half);
    }
  });
}

void rope(const TensorView& x, const TensorView& table, const TensorView& out, ThreadPool& pool) {
  switch (x.dtype) {
    case DType::kF32:
      return rope_typed<float>(x, table, out, pool);
    case DType::kF16:
      return rope_typed<Float16>(x, table, out, pool);
    case DType::kBF16:
      return rope_typed<BFloat16>(x, table, out, pool);
    case DType::kI32:
    case DType::kU8:
      break;
  }
  LAMINA_CHECK(false, "rope on a dtype that is no float");
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(add);
HWY_EXPORT(mul);
HWY_EXPORT(silu);
HWY_EXPORT(rms_norm);
HWY_EXPORT(rope);

void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(add)(a, b, out, pool);
}
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(mul)(a, b, out, pool);
}
void silu(const TensorView& x, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(silu)(x, out, pool);
}
void rms_norm(const TensorView& x,
              const TensorView& weight,
              float eps,
              const TensorView& out,
              ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, eps, out, pool);
}
void rope(const TensorView& x, const TensorView& table, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(rope)(x, table, out, pool);
}

void gather_rows(const TensorView& x,
                 const TensorView& rows,
                 const TensorView& out,
                 ThreadPool& pool) {
  const auto copy_rows = [&](int64_t begin, int64_t end) {
    const size_t element_bytes = dtype_bytes(x.dtype);
    for (int64_t s = begin; s < end; ++s) {
      const int64_t from = *rows.row<int32_t>(s) * x.row_stride;
      const int64_t to = s * out.row_stride;
      std::memcpy(out.data + static_cast<size_t>(to) * element_bytes,
                  x.data + static_cast<size_t>(from) * element_bytes,
                  x.row_bytes());
    }
  };
  constexpr int64_t kMinElements = 16 * 1024;
  pool.parallel_for(rows.shape[0],
                    ceil_div(kMinElements, std::max<int64_t>(1, x.row_elements())),
                    [&copy_rows](int64_t begin, int64_t end) { copy_rows(begin, end); });
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
