// Compares narrow products with plain sums in double precision, over generated shapes. Prints a
// line for each that differs; the exit status is 1 if one does.
//   lamina_narrow_product_check [n]     one of n of them, for compute-sanitizer, which is slow
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/products/narrow_product.h"
#include "kernels/cuda/testing/check_program.h"
#include "kernels/cuda/testing/device_memory.cuh"

namespace lamina::kernels::cuda::testing {
namespace {

struct CaseShape {
  int64_t num_tokens = 1;
  int64_t width = 1;
  int64_t depth = 8;
  bool has_bias = false;
  int64_t stride = 0;  // what rows of x and out have more than they need
};

// What lies between the rows of out, and must stay.
constexpr int kPoisonByte = 0xFF;

// expected [T, N] in double.
template <typename Element>
__global__ void plain_product(NarrowProduct product, double* expected) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= product.num_tokens * product.width) return;
  const int64_t n = i % product.width;
  const auto* x = static_cast<const Element*>(product.x) + i / product.width * product.x_stride;
  const auto* weight = static_cast<const Element*>(product.weight) + n * product.weight_stride;
  const auto* bias = static_cast<const Element*>(product.bias);
  double sum = bias == nullptr ? 0.0 : static_cast<double>(static_cast<float>(bias[n]));
  for (int64_t k = 0; k < product.depth; ++k) {
    sum += static_cast<double>(static_cast<float>(x[k])) *
           static_cast<double>(static_cast<float>(weight[k]));
  }
  expected[i] = sum;
}

template <typename Element, typename Out>
class Case {
 public:
  Case(const CaseShape& shape, uint64_t seed)
      : shape_(shape),
        x_(elements(shape.num_tokens, shape.depth + 8 * shape.stride)),
        weight_(elements(shape.width, shape.depth)),
        bias_(elements(1, shape.width)),
        out_(elements(shape.num_tokens, shape.width + shape.stride)) {
    fill_random(x_, seed);
    fill_random(weight_, seed + 1);
    fill_random(bias_, seed + 2);
  }

  [[nodiscard]] NarrowProduct product(int32_t* queue) const {
    constexpr ElementKind kElement =
        std::is_same_v<Element, __half> ? ElementKind::kF16 : ElementKind::kBF16;
    return {.x = x_.data(),
            .weight = weight_.data(),
            .bias = shape_.has_bias ? bias_.data() : nullptr,
            .out = out_.data(),
            .queue = queue,
            .element = kElement,
            .out_element = std::is_same_v<Out, float> ? ElementKind::kF32 : kElement,
            .num_tokens = shape_.num_tokens,
            .width = shape_.width,
            .depth = shape_.depth,
            .x_stride = shape_.depth + 8 * shape_.stride,
            .weight_stride = shape_.depth,
            .out_stride = shape_.width + shape_.stride};
  }

  // Launches back to back, so that one begins while the one before runs; returns the last's out.
  std::vector<Out> launch(int32_t* queue) const {
    out_.fill_bytes(kPoisonByte);
    for (int i = 0; i < 3; ++i) {
      LAMINA_REQUIRE_CUDA(launch_narrow_product(product(queue), nullptr));
    }
    LAMINA_REQUIRE_CUDA(cudaDeviceSynchronize());
    return out_.to_host();
  }

  [[nodiscard]] std::vector<double> expected() const {
    const DeviceArray<double> sums(elements(shape_.num_tokens, shape_.width));
    const auto blocks = static_cast<unsigned>((sums.size() + 127) / 128);
    plain_product<Element><<<blocks, 128>>>(product(nullptr), sums.data());
    LAMINA_REQUIRE_CUDA(cudaGetLastError());
    return sums.to_host();
  }

 private:
  static size_t elements(int64_t rows, int64_t columns) {
    return static_cast<size_t>(rows) * static_cast<size_t>(columns);
  }

  CaseShape shape_;
  DeviceArray<Element> x_;
  DeviceArray<Element> weight_;
  DeviceArray<Element> bias_;
  DeviceArray<Out> out_;
};

template <typename T>
bool is_poison(const T& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
  for (size_t i = 0; i < sizeof(T); ++i) {
    if (bytes[i] != kPoisonByte) return false;
  }
  return true;
}

// The largest difference as a share of what is allowed: f32 sums in another order, and what
// rounding to Out takes. Infinite where something else was written.
template <typename Out>
double difference(const CaseShape& shape,
                  const std::vector<Out>& actual,
                  const std::vector<double>& expected) {
  const double rounding = std::is_same_v<Out, float>    ? 1e-6
                          : std::is_same_v<Out, __half> ? 1e-3
                                                        : 8e-3;
  const int64_t stride = shape.width + shape.stride;
  double worst = 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const int64_t token = static_cast<int64_t>(i) / stride;
    const int64_t column = static_cast<int64_t>(i) % stride;
    if (column >= shape.width) {
      if (!is_poison(actual[i])) return INFINITY;
      continue;
    }
    const double want = expected[static_cast<size_t>(token * shape.width + column)];
    const double allowed =
        1e-5 * std::sqrt(static_cast<double>(shape.depth)) + rounding * std::abs(want);
    const double share = std::abs(static_cast<double>(static_cast<float>(actual[i])) - want);
    if (!(share <= INFINITY)) return INFINITY;  // NaN
    worst = std::max(worst, share / allowed);
  }
  return worst;
}

template <typename Element, typename Out>
void run(const CaseShape& shape, int32_t* queue) {
  if (!cases.takes_next()) return;
  const Case<Element, Out> c(shape, static_cast<uint64_t>(cases.num_run));
  const std::vector<double> expected = c.expected();
  const std::vector<Out> out = c.launch(queue);
  const double worst = difference(shape, out, expected);
  const std::vector<Out> again = c.launch(queue);
  const bool is_same = std::memcmp(out.data(), again.data(), out.size() * sizeof(Out)) == 0;
  if (worst <= 1.0 && is_same) return;
  ++cases.num_failed;
  std::printf("FAILED T %d, N %d, K %d%s%s, stride %d: %.2e of what is allowed%s\n",
              static_cast<int>(shape.num_tokens),
              static_cast<int>(shape.width),
              static_cast<int>(shape.depth),
              shape.has_bias ? ", bias" : "",
              std::is_same_v<Out, float> ? ", f32" : "",
              static_cast<int>(shape.stride),
              worst,
              is_same ? "" : ", and other bits the second time");
}

template <typename Element>
void run_all(int32_t* queue) {
  constexpr int64_t kNumTokens[] = {1, 2, 7, 8, 9, 15, 16, 17, 25, 31, 32, 33, 48, 63, 64};
  constexpr std::pair<int64_t, int64_t> kSizes[] = {
      {1, 8}, {16, 16}, {63, 128}, {65, 136}, {129, 264}, {200, 520}, {1000, 1032}, {24, 8200}};
  for (const int64_t num_tokens : kNumTokens) {
    for (const auto& [width, depth] : kSizes) {
      run<Element, Element>({num_tokens, width, depth, true}, queue);
      run<Element, float>({num_tokens, width, depth, false, 5}, queue);
    }
  }
  // Those of models.
  for (const int64_t num_tokens : {1, 16, 27, 50}) {
    for (const auto& [width, depth] :
         {std::pair{4096, 4096}, {6144, 4096}, {28672, 4096}, {4096, 14336}, {19968, 6656}}) {
      run<Element, Element>({num_tokens, width, depth}, queue);
    }
    run<Element, float>({num_tokens, 128256, 4096}, queue);
  }
}

}  // namespace
}  // namespace lamina::kernels::cuda::testing

int main(int argc, char** argv) {
  using namespace lamina::kernels::cuda;
  using namespace lamina::kernels::cuda::testing;
  return run_checks(argc, argv, "products", [] {
    const DeviceArray<int32_t> queue(kNarrowQueueBytes / sizeof(int32_t));
    queue.fill_bytes(0);
    run_all<__nv_bfloat16>(queue.data());
    run_all<__half>(queue.data());
  });
}
