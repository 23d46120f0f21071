#include "kernels/cpu/pointwise.h"

#include "kernels/cpu/row_loop.h"

// clang-format off: the order matters
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pointwise.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "base/check.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

using cpu::for_each_row;

// Calls body.operator()<T>() with the element type of `dtype`.
template <typename Body>
void with_element(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body.template operator()<float>();
    case DType::kF16:
      return body.template operator()<Float16>();
    case DType::kBF16:
      return body.template operator()<BFloat16>();
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  LAMINA_CHECK(false, "element-wise on a dtype that is no float");
}

struct Add {
  HWY_INLINE F32Vector operator()(F32Vector a, F32Vector b) const { return hn::Add(a, b); }
};
struct Mul {
  HWY_INLINE F32Vector operator()(F32Vector a, F32Vector b) const { return hn::Mul(a, b); }
};
struct Scale {
  float factor;
  HWY_INLINE F32Vector operator()(F32Vector x) const {
    return hn::Mul(x, hn::Set(F32Tag(), factor));
  }
};
struct SoftCap {
  float cap;
  HWY_INLINE F32Vector operator()(F32Vector x) const {
    const F32Tag d;
    return hn::Mul(hn::Tanh(d, hn::Div(x, hn::Set(d, cap))), hn::Set(d, cap));
  }
};
template <Activation kActivation>
struct Activate {
  HWY_INLINE F32Vector operator()(F32Vector x) const { return activate<kActivation>(x); }
};

template <typename Op, typename T>
HWY_NOINLINE void map_row(const Op& op, const T* x, T* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_upto(op(load_upto(x + i, count - i)), out + i, count - i);
  }
}

template <typename Op, typename T>
HWY_NOINLINE void map_rows(const Op& op, const T* a, const T* b, T* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const F32Vector result = op(load_upto(a + i, count - i), load_upto(b + i, count - i));
    store_upto(result, out + i, count - i);
  }
}

template <typename Op>
void map(const Op& op, const TensorView& x, const TensorView& out, ThreadPool& pool) {
  with_element(x.dtype, [&]<typename T>() {
    for_each_row(
        x, pool, [&](int64_t t) { map_row(op, x.row<T>(t), out.row<T>(t), x.row_elements()); });
  });
}

template <typename Op>
void map_pairs(const Op& op,
               const TensorView& a,
               const TensorView& b,
               const TensorView& out,
               ThreadPool& pool) {
  with_element(a.dtype, [&]<typename T>() {
    for_each_row(a, pool, [&](int64_t t) {
      map_rows(op, a.row<T>(t), b.row<T>(t), out.row<T>(t), a.row_elements());
    });
  });
}

void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  map_pairs(Add(), a, b, out, pool);
}
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  map_pairs(Mul(), a, b, out, pool);
}
void mul_rows(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  with_element(a.dtype, [&]<typename T>() {
    for_each_row(a, pool, [&](int64_t t) {
      float factor[kLanes];
      store_f32(load_upto(b.row<T>(t), 1), factor);
      map_row(Scale{factor[0]}, a.row<T>(t), out.row<T>(t), a.row_elements());
    });
  });
}
void scale(const TensorView& x, float factor, const TensorView& out, ThreadPool& pool) {
  map(Scale{factor}, x, out, pool);
}
void soft_cap(const TensorView& x, float cap, const TensorView& out, ThreadPool& pool) {
  map(SoftCap{cap}, x, out, pool);
}
void activation(const TensorView& x, Activation kind, const TensorView& out, ThreadPool& pool) {
  with_activation(kind,
                  [&]<Activation kActivation>() { map(Activate<kActivation>(), x, out, pool); });
}

void gated_activation(const TensorView& x,
                      const GatedActivationAttrs& attrs,
                      const TensorView& out,
                      ThreadPool& pool) {
  const float* limit = attrs.limit ? &*attrs.limit : nullptr;
  const int64_t width = out.shape[1];
  with_activation(attrs.activation, [&]<Activation kActivation>() {
    with_element(x.dtype, [&]<typename T>() {
      for_each_row(out, pool, [&](int64_t t) {
        const T* gate = x.row<T>(t);
        gate_row<kActivation>(gate, gate + width, limit, out.row<T>(t), width);
      });
    });
  });
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::kernels::cpu {

HWY_EXPORT(add);
HWY_EXPORT(mul);
HWY_EXPORT(mul_rows);
HWY_EXPORT(scale);
HWY_EXPORT(soft_cap);
HWY_EXPORT(activation);
HWY_EXPORT(gated_activation);

void add(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(add)(a, b, out, pool);
}
void mul(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(mul)(a, b, out, pool);
}
void mul_rows(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(mul_rows)(a, b, out, pool);
}
void scale(const TensorView& x, float factor, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(scale)(x, factor, out, pool);
}
void soft_cap(const TensorView& x, float cap, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(soft_cap)(x, cap, out, pool);
}
void activation(const TensorView& x, Activation kind, const TensorView& out, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(activation)(x, kind, out, pool);
}
void gated_activation(const TensorView& x,
                      const GatedActivationAttrs& attrs,
                      const TensorView& out,
                      ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(gated_activation)(x, attrs, out, pool);
}

}  // namespace lamina::kernels::cpu
#endif
