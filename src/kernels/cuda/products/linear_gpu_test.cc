#include <fmt/format.h>

#include "kernels/cuda/products/blas_lt.h"
#include "kernels/cuda/testing/device_tensor.h"
#include "kernels/linear.h"
#include "kernels/ref/linear.h"

namespace lamina::kernels {
namespace {

// Widths and depths; odd ones forbid what needs aligned rows.
constexpr std::pair<int64_t, int64_t> kSizes[] = {
    {1, 1}, {5, 7}, {7, 64}, {100, 577}, {577, 100}, {256, 128}};
constexpr int64_t kNumTokens[] = {1, 3, 16, 65, 257};

struct Problem {
  TestTensor x;
  TestTensor weight;
  TestTensor bias;

  Problem(DType dtype, int64_t m, int64_t n, int64_t k, uint64_t seed) {
    Rng rng(seed);
    x = TestTensor::random(dtype, {m, k}, rng);
    weight = TestTensor::random(dtype, {n, k}, rng);
    bias = TestTensor::random(dtype, {n}, rng);
  }
};

TestTensor poisoned(DType dtype, const Shape& shape) {
  TestTensor tensor(dtype, shape);
  tensor.poison();
  return tensor;
}

class LinearGpu : public CudaTest {
 protected:
  void expect_agreement(const Problem& problem, DType out_dtype) {
    const Shape shape = {problem.x.view().shape[0], problem.weight.view().shape[0]};
    const std::string what = fmt::format("{} into {} m {} n {} k {}",
                                         dtype_name(problem.x.view().dtype),
                                         dtype_name(out_dtype),
                                         shape[0],
                                         shape[1],
                                         problem.weight.view().shape[1]);
    const DeviceTensor x(problem.x);
    const DeviceTensor weight(problem.weight);
    const DeviceTensor bias(problem.bias);
    for (const bool has_bias : {false, true}) {
      const TestTensor expected(out_dtype, shape);
      ref::linear({problem.x.view(),
                   problem.weight.view(),
                   has_bias ? problem.bias.view() : TensorView(),
                   expected.view()});
      const DeviceTensor out(poisoned(out_dtype, shape));
      const LinearArgs args = {
          x.view(), weight.view(), has_bias ? bias.view() : TensorView(), out.view()};
      // The second time by a plan that is there.
      for (int i = 0; i < 2; ++i) {
        const Status status = linear(args, stream());
        ASSERT_TRUE(status.ok()) << what << ": " << status.to_string();
      }
      const auto depth = static_cast<float>(problem.x.view().shape[1]);
      expect_near(out.to_host(stream()),
                  expected,
                  4.0F * std::sqrt(depth),
                  fmt::format("{} {}", what, has_bias ? "with bias" : "without bias"));
      if (HasFatalFailure()) return;
    }
  }
};

TEST_F(LinearGpu, AgreesWithReference) {
  uint64_t seed = 1;
  for (const DType dtype : kFloatDTypes) {
    for (const DType out_dtype : {DType::kF32, dtype}) {
      for (const int64_t m : kNumTokens) {
        for (const auto& [n, k] : kSizes) {
          expect_agreement(Problem(dtype, m, n, k, ++seed), out_dtype);
        }
      }
    }
  }
}

// Depths of whole 16 bytes and few rows: narrow_product.h's, around the bounds of its tiles.
TEST_F(LinearGpu, FewRowsAgreeWithReference) {
  uint64_t seed = 100;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const DType out_dtype : {DType::kF32, dtype}) {
      for (const int64_t m : {1, 2, 8, 9, 16, 23, 32}) {
        for (const auto& [n, k] : {std::pair{1, 8}, {63, 136}, {129, 264}, {70, 2056}}) {
          expect_agreement(Problem(dtype, m, n, k, ++seed), out_dtype);
        }
      }
    }
  }
}

TEST_F(LinearGpu, FewRowsHaveTheSameBitsEachTime) {
  const Problem problem(DType::kBF16, 16, 700, 4104, 3);
  const DeviceTensor x(problem.x);
  const DeviceTensor weight(problem.weight);
  const DeviceTensor out(poisoned(DType::kF32, {16, 700}));
  TestTensor first;
  for (int i = 0; i < 50; ++i) {
    const Status status = linear({x.view(), weight.view(), {}, out.view()}, stream());
    ASSERT_TRUE(status.ok()) << status.to_string();
    const TestTensor actual = out.to_host(stream());
    if (i == 0) first = actual;
    ASSERT_EQ(actual, first) << "launch " << i;
  }
}

// Of rows that begin anywhere and lie anyhow far apart; what lies between them stays.
TEST_F(LinearGpu, TakesStridedRowsAndColumns) {
  Rng rng(3);
  for (const DType dtype : kFloatDTypes) {
    for (const auto& [stride, begin] : {std::pair{96, 8}, {97, 3}, {96, 1}}) {
      for (const int64_t m : {1, 5, 33}) {
        const TestTensor wide = TestTensor::random(dtype, {m, stride}, rng);
        const TestTensor weight = TestTensor::random(dtype, {16, 40}, rng);
        const TestTensor bias = TestTensor::random(dtype, {16}, rng);
        const TestTensor expected = poisoned(dtype, {m, stride});
        ref::linear({wide.view().columns(begin, 40),
                     weight.view(),
                     bias.view(),
                     expected.view().columns(begin, 16)});
        const DeviceTensor x(wide);
        const DeviceTensor device_weight(weight);
        const DeviceTensor device_bias(bias);
        const DeviceTensor out(poisoned(dtype, {m, stride}));
        const Status status = linear({x.view().columns(begin, 40),
                                      device_weight.view(),
                                      device_bias.view(),
                                      out.view().columns(begin, 16)},
                                     stream());
        ASSERT_TRUE(status.ok()) << status.to_string();
        const TestTensor actual = out.to_host(stream());
        for (int64_t i = 0; i < actual.size(); ++i) {
          const int64_t column = i % stride;
          if (column >= begin && column < begin + 16) {
            ASSERT_NEAR(actual.at(i), expected.at(i), 10 * double{tolerance(dtype)})
                << dtype_name(dtype) << " m " << m << " stride " << stride << " element " << i;
          } else {
            ASSERT_TRUE(std::isnan(actual.at(i))) << "element " << i << " was written";
          }
        }
      }
    }
  }
}

TEST_F(LinearGpu, TakesWeightsAndBiasesAtAnyAddress) {
  for (const DType dtype : kFloatDTypes) {
    Rng rng(5);
    const TestTensor x = TestTensor::random(dtype, {9, 64}, rng);
    const TestTensor weights = TestTensor::random(dtype, {1, 1 + 48 * 64}, rng);
    const TestTensor biases = TestTensor::random(dtype, {1, 49}, rng);
    const auto weight_of = [&](const TensorView& all) {
      return TensorView(all.columns(1, 48 * 64).data, dtype, {48, 64});
    };
    const auto bias_of = [&](const TensorView& all) {
      return TensorView(all.columns(1, 48).data, dtype, {48});
    };
    const TestTensor expected(dtype, {9, 48});
    ref::linear({x.view(), weight_of(weights.view()), bias_of(biases.view()), expected.view()});
    const DeviceTensor device_x(x);
    const DeviceTensor device_weights(weights);
    const DeviceTensor device_biases(biases);
    const DeviceTensor out(poisoned(dtype, {9, 48}));
    const Status status = linear({device_x.view(),
                                  weight_of(device_weights.view()),
                                  bias_of(device_biases.view()),
                                  out.view()},
                                 stream());
    ASSERT_TRUE(status.ok()) << status.to_string();
    expect_near(out.to_host(stream()), expected, 32.0F, std::string(dtype_name(dtype)));
  }
}

TEST_F(LinearGpu, NoRowsIsNoWork) {
  const Problem problem(DType::kBF16, 0, 4, 8, 1);
  const DeviceTensor x(problem.x);
  const DeviceTensor weight(problem.weight);
  const DeviceTensor out(TestTensor(DType::kBF16, {0, 4}));
  EXPECT_TRUE(linear({x.view(), weight.view(), {}, out.view()}, stream()).ok());
  EXPECT_TRUE(synchronize(stream()).ok());
}

TEST_F(LinearGpu, CanBeCaptured) {
  const Problem problem(DType::kBF16, 16, 100, 64, 2);
  const DeviceTensor x(problem.x);
  const DeviceTensor weight(problem.weight);
  const DeviceTensor bias(problem.bias);
  const DeviceTensor out(poisoned(DType::kF32, {16, 100}));
  const LinearArgs args = {x.view(), weight.view(), bias.view(), out.view()};
  ASSERT_TRUE(cuda::prepare_products(stream()).ok());
  ASSERT_TRUE(linear(args, stream()).ok());
  const TestTensor expected = out.to_host(stream());
  throw_if_error(copy(out.view().data,
                      poisoned(DType::kF32, {16, 100}).view().data,
                      out.view().size_bytes(),
                      stream()));

  const cudaStream_t raw = lamina::cuda::raw(stream());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t run = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(raw, cudaStreamCaptureModeGlobal), cudaSuccess);
  const Status status = linear(args, stream());
  ASSERT_EQ(cudaStreamEndCapture(raw, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status.to_string();
  ASSERT_EQ(cudaGraphInstantiate(&run, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(run, raw), cudaSuccess);
  EXPECT_EQ(out.to_host(stream()), expected);
  cudaGraphExecDestroy(run);
  cudaGraphDestroy(graph);
}

TEST_F(LinearGpu, HeadLinearAgreesWithReference) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t m : kNumTokens) {
      for (const auto& [n, k] : {std::pair{1, 1}, {7, 33}, {64, 16}, {100, 577}, {128, 512}}) {
        Rng rng(4);
        const TestTensor x = TestTensor::random(dtype, {m, 3, k}, rng);
        const TestTensor weight = TestTensor::random(dtype, {3, n, k}, rng);
        const TestTensor expected(dtype, {m, 3, n});
        ref::head_linear(x.view(), weight.view(), expected.view());
        const DeviceTensor device_x(x);
        const DeviceTensor device_weight(weight);
        const DeviceTensor out(poisoned(dtype, {m, 3, n}));
        const Status status =
            head_linear(device_x.view(), device_weight.view(), out.view(), stream());
        ASSERT_TRUE(status.ok()) << status.to_string();
        expect_near(out.to_host(stream()),
                    expected,
                    4.0F * std::sqrt(static_cast<float>(k)),
                    fmt::format("{} m {} n {} k {}", dtype_name(dtype), m, n, k));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Heads 1 and 2 of four.
TEST_F(LinearGpu, HeadLinearTakesSomeOfTheHeads) {
  for (const DType dtype : kFloatDTypes) {
    Rng rng(6);
    const TestTensor x = TestTensor::random(dtype, {5, 4, 24}, rng);
    const TestTensor weight = TestTensor::random(dtype, {2, 8, 24}, rng);
    const TestTensor expected = poisoned(dtype, {5, 4, 8});
    ref::head_linear(x.view().columns(1, 2), weight.view(), expected.view().columns(1, 2));
    const DeviceTensor device_x(x);
    const DeviceTensor device_weight(weight);
    const DeviceTensor out(poisoned(dtype, {5, 4, 8}));
    const Status status = head_linear(
        device_x.view().columns(1, 2), device_weight.view(), out.view().columns(1, 2), stream());
    ASSERT_TRUE(status.ok()) << status.to_string();
    const TestTensor actual = out.to_host(stream());
    for (int64_t i = 0; i < actual.size(); ++i) {
      const int64_t head = i / 8 % 4;
      if (head == 1 || head == 2) {
        ASSERT_NEAR(actual.at(i), expected.at(i), 10 * double{tolerance(dtype)}) << i;
      } else {
        ASSERT_TRUE(std::isnan(actual.at(i))) << "element " << i << " was written";
      }
    }
  }
}

}  // namespace
}  // namespace lamina::kernels
