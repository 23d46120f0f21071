// One kernel for all: a thread reads a vector of each operand, and writes a vector. Operands
// without gaps between their rows are one long row.
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/rowwise/activation.cuh"

namespace lamina::kernels::cuda {
namespace {

// What the second operand of an operator is.
enum class Second : uint8_t {
  kNone,
  kElements,   // one for each of the first
  kRowFactor,  // one for each row
};

struct MapParams {
  const void* a;
  const void* b;
  void* out;
  int64_t a_stride;
  int64_t b_stride;
  int64_t out_stride;
  int64_t num_rows;
  int64_t width;
  bool is_aligned;
};

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Mul {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Scale {
  float factor;
  __device__ float operator()(float x) const { return x * factor; }
};
struct SoftCap {
  float cap;
  __device__ float operator()(float x) const { return cap * tanhf(x / cap); }
};
template <Activation kActivation>
struct Activate {
  __device__ float operator()(float x) const { return activate<kActivation>(x); }
};
template <Activation kActivation>
struct Gate {
  float limit;
  bool has_limit;
  __device__ float operator()(float gate, float up) const {
    return gated(gate, up, limit, has_limit, activate<kActivation>);
  }
};

// out may be a.
template <typename T, Second kSecond, typename Op>
__global__ void map_kernel(const __grid_constant__ MapParams params,
                           const __grid_constant__ Op op) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<T>;
  const int64_t begin = column() * kCount;
  const int64_t left = params.width - begin;
  if (left <= 0) return;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const T* const b_row = static_cast<const T*>(params.b) + row * params.b_stride;
    float a[kCount];
    [[maybe_unused]] float b[kCount];
    load_upto(static_cast<const T*>(params.a) + row * params.a_stride + begin,
              left,
              params.is_aligned,
              a);
    if constexpr (kSecond == Second::kElements) {
      load_upto(b_row + begin, left, params.is_aligned, b);
    } else if constexpr (kSecond == Second::kRowFactor) {
      b[0] = widen(*b_row);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kSecond == Second::kNone) {
        a[i] = op(a[i]);
      } else {
        a[i] = op(a[i], b[kSecond == Second::kRowFactor ? 0 : i]);
      }
    }
    store_upto(
        a, static_cast<T*>(params.out) + row * params.out_stride + begin, left, params.is_aligned);
  }
}

// a and out of one shape; b as kSecond says, an empty view where there is none.
template <Second kSecond, typename Op>
Status map(std::string_view name,
           const Op& op,
           const TensorView& a,
           const TensorView& b,
           const TensorView& out,
           StreamView stream) {
  MapParams params{a.data,
                   b.data,
                   out.data,
                   a.row_stride,
                   b.row_stride,
                   out.row_stride,
                   a.shape[0],
                   a.row_elements(),
                   false};
  constexpr bool kHasElements = kSecond == Second::kElements;
  if (kSecond != Second::kRowFactor && a.is_contiguous() && out.is_contiguous() &&
      (!kHasElements || b.is_contiguous())) {
    params.width *= params.num_rows;
    params.num_rows = 1;
  }
  if (params.num_rows == 0 || params.width == 0) return {};
  params.is_aligned = has_aligned_rows(a, params.num_rows) &&
                      has_aligned_rows(out, params.num_rows) &&
                      (!kHasElements || has_aligned_rows(b, params.num_rows));
  return with_element(a.dtype, [&]<typename T>() {
    const RowGrid grid(params.num_rows, ceil_div(params.width, int64_t{kVectorElements<T>}));
    const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
    return lamina::cuda::to_status(launch(map_kernel<T, kSecond, Op>, how, params, op), name);
  });
}

}  // namespace

Status add(TensorView a, TensorView b, TensorView out, StreamView stream) {
  return map<Second::kElements>("add", Add(), a, b, out, stream);
}

Status mul(TensorView a, TensorView b, TensorView out, StreamView stream) {
  if (a.shape == b.shape) return map<Second::kElements>("mul", Mul(), a, b, out, stream);
  return map<Second::kRowFactor>("mul", Mul(), a, b, out, stream);
}

Status scale(TensorView x, float factor, TensorView out, StreamView stream) {
  return map<Second::kNone>("scale", Scale{factor}, x, {}, out, stream);
}

Status soft_cap(TensorView x, float cap, TensorView out, StreamView stream) {
  return map<Second::kNone>("soft_cap", SoftCap{cap}, x, {}, out, stream);
}

Status activation(TensorView x, Activation kind, TensorView out, StreamView stream) {
  return with_activation(kind, [&]<Activation kActivation>() {
    return map<Second::kNone>("activation", Activate<kActivation>(), x, {}, out, stream);
  });
}

Status gated_activation(TensorView x,
                        const GatedActivationAttrs& attrs,
                        TensorView out,
                        StreamView stream) {
  TensorView gates = x.columns(0, 1);
  TensorView ups = x.columns(1, 1);
  gates.shape = ups.shape = out.shape;
  return with_activation(attrs.activation, [&]<Activation kActivation>() {
    const Gate<kActivation> gate{attrs.limit.value_or(0.0F), attrs.limit.has_value()};
    return map<Second::kElements>("gated_activation", gate, gates, ups, out, stream);
  });
}

}  // namespace lamina::kernels::cuda
