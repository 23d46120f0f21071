// Activations on f32 vectors, compiled once per instruction set. Included inside the foreach_target
// part of the .cc files of this folder only, after Highway's math.
#if defined(LAMINA_KERNELS_CPU_ACTIVATIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_ACTIVATIONS_INL_H_
#undef LAMINA_KERNELS_CPU_ACTIVATIONS_INL_H_
#else
#define LAMINA_KERNELS_CPU_ACTIVATIONS_INL_H_
#endif

#include "kernels/cpu/simd-inl.h"
#include "tensor/op_attrs.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::kernels::HWY_NAMESPACE {

// x / (1 + exp(-z)).
HWY_INLINE F32Vector times_sigmoid(F32Vector x, F32Vector z) {
  const F32Tag d;
  // exp() is good up to 104; beyond 88 the result is nothing beside f32's least normal number.
  const F32Vector power = hn::Min(hn::Neg(z), hn::Set(d, 88.0F));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0F), hn::Exp(d, power)));
}

// exp(z^2) erfc(z) for z >= 0: t P(t) with t = 1 / (1 + 0.4 z). P is a least-squares fit of degree
// 9 on Chebyshev nodes of z in [0, 9.5], weighted for relative error: 8e-9 of exact values, 2.3e-7
// in f32.
HWY_INLINE F32Vector scaled_erfc(F32Vector z) {
  const F32Tag d;
  const F32Vector one = hn::Set(d, 1.0F);
  const F32Vector t = hn::Div(one, hn::MulAdd(hn::Set(d, 0.4F), z, one));
  constexpr float kCoefficients[] = {-0.031425424F,
                                     0.20783748F,
                                     -0.52162213F,
                                     0.57745975F,
                                     -0.30900708F,
                                     0.28511646F,
                                     0.125227F,
                                     0.21586138F,
                                     0.22483991F,
                                     0.22571261F};
  F32Vector sum = hn::Zero(d);
  for (const float coefficient : kCoefficients) {
    sum = hn::MulAdd(sum, t, hn::Set(d, coefficient));
  }
  return hn::Mul(sum, t);
}

// x Phi(x), from the tail that is small: x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2.
HWY_INLINE F32Vector gelu(F32Vector x) {
  const F32Tag d;
  // Beyond 13 the tail is nothing in f32, and exp() is good up to 104.
  const F32Vector size = hn::Min(hn::Abs(x), hn::Set(d, 13.0F));
  const F32Vector z = hn::Mul(size, hn::Set(d, 0.70710678F));
  const F32Vector power = hn::Mul(hn::Mul(size, size), hn::Set(d, -0.5F));
  const F32Vector tail = hn::Mul(hn::Exp(d, power), scaled_erfc(z));
  const F32Vector part = hn::Mul(hn::Mul(size, tail), hn::Set(d, 0.5F));
  const F32Vector result = hn::Sub(hn::Max(x, hn::Zero(d)), part);
  return hn::IfThenElse(hn::IsNaN(x), x, result);
}

// x (1 + tanh(u)) / 2 = x sigmoid(2 u).
HWY_INLINE F32Vector gelu_tanh(F32Vector x) {
  const F32Tag d;
  const F32Vector cube = hn::Mul(hn::Mul(x, x), x);
  const F32Vector inner = hn::MulAdd(hn::Set(d, 0.044715F), cube, x);
  return times_sigmoid(x, hn::Mul(inner, hn::Set(d, 1.59576912F)));  // 2 sqrt(2 / pi)
}

template <Activation kActivation>
HWY_INLINE F32Vector activate(F32Vector x) {
  const F32Tag d;
  if constexpr (kActivation == Activation::kRelu) {
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Max(x, hn::Zero(d)));
  } else if constexpr (kActivation == Activation::kReluSquared) {
    const F32Vector positive = hn::IfThenElse(hn::IsNaN(x), x, hn::Max(x, hn::Zero(d)));
    return hn::Mul(positive, positive);
  } else if constexpr (kActivation == Activation::kSilu) {
    return times_sigmoid(x, x);
  } else if constexpr (kActivation == Activation::kGelu) {
    return gelu(x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    return gelu_tanh(x);
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    return times_sigmoid(x, hn::Mul(x, hn::Set(d, 1.702F)));
  } else {
    static_assert(kActivation == Activation::kSigmoid);
    return hn::IfThenElse(hn::IsNaN(x), x, times_sigmoid(hn::Set(d, 1.0F), x));
  }
}

// Calls body.operator()<kActivation>() for the activation that is only known when it runs.
template <typename Body>
HWY_INLINE void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kRelu:
      return body.template operator()<Activation::kRelu>();
    case Activation::kReluSquared:
      return body.template operator()<Activation::kReluSquared>();
    case Activation::kSilu:
      return body.template operator()<Activation::kSilu>();
    case Activation::kGelu:
      return body.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh:
      return body.template operator()<Activation::kGeluTanh>();
    case Activation::kQuickGelu:
      return body.template operator()<Activation::kQuickGelu>();
    case Activation::kSigmoid:
      return body.template operator()<Activation::kSigmoid>();
  }
}

// out[i] = activation(gate[i]) * up[i], or gpt_oss's form with a limit, for `count` elements.
template <Activation kActivation, typename T>
HWY_NOINLINE void gate_row(const T* gate, const T* up, const float* limit, T* out, int64_t count) {
  const F32Tag d;
  for (int64_t i = 0; i < count; i += kLanes) {
    F32Vector g = load_upto(gate + i, count - i);
    F32Vector u = load_upto(up + i, count - i);
    if (limit != nullptr) {
      const F32Vector most = hn::Set(d, *limit);
      g = hn::Min(g, most);
      u = hn::Add(hn::Max(hn::Min(u, most), hn::Neg(most)), hn::Set(d, 1.0F));
    }
    store_upto(hn::Mul(activate<kActivation>(g), u), out + i, count - i);
  }
}

}  // namespace lamina::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LAMINA_KERNELS_CPU_ACTIVATIONS_INL_H_
