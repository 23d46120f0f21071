#include <fmt/format.h>

#include <initializer_list>

#include "kernels/cuda/testing/device_tensor.h"
#include "kernels/experts.h"
#include "kernels/ref/experts.h"

namespace lamina::kernels {
namespace {

TestTensor poisoned(DType dtype, const Shape& shape) {
  TestTensor tensor(dtype, shape);
  tensor.poison();
  return tensor;
}

class RouteGpu : public CudaTest {
 protected:
  [[nodiscard]] TestTensor run(const TestTensor& logits,
                               const TestTensor& bias,
                               const RouteAttrs& attrs) const {
    const DeviceTensor device_logits(logits);
    const DeviceTensor device_bias(bias);
    const DeviceTensor out(poisoned(DType::kF32, logits.view().shape));
    const Status status =
        route(device_logits.view(), device_bias.view(), attrs, out.view(), stream());
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out.to_host(stream());
  }
};

TEST_F(RouteGpu, AgreesWithReference) {
  for (const RouteAttrs& attrs :
       {RouteAttrs{.top_k = 1},
        RouteAttrs{.top_k = 3, .renormalize = true},
        RouteAttrs{.top_k = 24},
        RouteAttrs{.top_k = 2, .scale = 16.0F, .num_groups = 4, .top_groups = 2},
        RouteAttrs{.top_k = 4, .scoring = RouteScoring::kSigmoid, .renormalize = true},
        RouteAttrs{.top_k = 3,
                   .scoring = RouteScoring::kSigmoid,
                   .renormalize = true,
                   .scale = 2.5F,
                   .num_groups = 8,
                   .top_groups = 3}}) {
    for (const int64_t num_experts : {24, 72, 256}) {
      for (const int64_t num_tokens : {1, 17, 257}) {
        Rng rng(11);
        const TestTensor logits =
            TestTensor::random(DType::kF32, {num_tokens, num_experts}, rng, 4.0F);
        for (const DType dtype : kFloatDTypes) {
          const TestTensor bias = TestTensor::random(dtype, {num_experts}, rng, 0.5F);
          for (const TestTensor& shift : {TestTensor(), bias}) {
            const TestTensor expected(DType::kF32, logits.view().shape);
            ref::route(logits.view(), shift.view(), attrs, expected.view());
            expect_near(run(logits, shift, attrs),
                        expected,
                        0.1F,
                        fmt::format("top_k {} of {}", attrs.top_k, num_experts));
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST_F(RouteGpu, EqualScoresGoToTheSmallerIndexAndNaNDoesNoHarm) {
  TestTensor logits(DType::kF32, {2, 70});
  for (int64_t i = 0; i < 70; ++i) logits.set(i, i >= 5 && i % 3 == 0 ? 2.0F : 1.0F);
  for (int64_t i = 70; i < 140; ++i) logits.set(i, i == 78 ? NAN : 0.0F);
  const TestTensor out = run(logits, {}, {.top_k = 2, .renormalize = true});
  for (int64_t i = 0; i < 70; ++i) EXPECT_EQ(out.at(i), i == 6 || i == 9 ? 0.5F : 0.0F) << i;
}

TEST_F(RouteGpu, TakesStridedRows) {
  Rng rng(2);
  const TestTensor wide = TestTensor::random(DType::kF32, {5, 50}, rng, 4.0F);
  const TestTensor expected = poisoned(DType::kF32, {5, 40});
  const RouteAttrs attrs = {.top_k = 4, .renormalize = true};
  ref::route(wide.view().columns(7, 33), {}, attrs, expected.view().columns(3, 33));
  const DeviceTensor logits(wide);
  const DeviceTensor out(poisoned(DType::kF32, {5, 40}));
  ASSERT_TRUE(
      route(logits.view().columns(7, 33), {}, attrs, out.view().columns(3, 33), stream()).ok());
  const TestTensor actual = out.to_host(stream());
  for (int64_t i = 0; i < actual.size(); ++i) {
    if (i % 40 >= 3 && i % 40 < 36) {
      ASSERT_NEAR(actual.at(i), expected.at(i), 1e-6) << i;
    } else {
      ASSERT_TRUE(std::isnan(actual.at(i))) << "element " << i << " was written";
    }
  }
}

struct Sizes {
  int64_t num_tokens = 1;
  int64_t num_experts = 6;
  int64_t top_k = 2;
  int64_t depth = 72;
  int64_t inner = 100;
  int64_t width = 72;
};

struct Problem {
  TestTensor x, routes, gate_up, down, gate_up_bias, down_bias;
  Shape out_shape;

  Problem(DType dtype, const Sizes& sizes, uint64_t seed) {
    Rng rng(seed);
    const int64_t num_experts = sizes.num_experts;
    x = TestTensor::random(dtype, {sizes.num_tokens, sizes.depth}, rng);
    routes = TestTensor(DType::kF32, {sizes.num_tokens, num_experts});
    for (int64_t t = 0; t < sizes.num_tokens; ++t) {
      for (int64_t i = 0; i < sizes.top_k; ++i) {
        const auto expert =
            static_cast<int64_t>(rng.next_below(static_cast<uint64_t>(num_experts)));
        routes.set(t * num_experts + expert, rng.next_float() + 0.1F);
      }
    }
    gate_up = TestTensor::random(dtype, {num_experts, 2 * sizes.inner, sizes.depth}, rng, 0.3F);
    down = TestTensor::random(dtype, {num_experts, sizes.width, sizes.inner}, rng, 0.3F);
    gate_up_bias = TestTensor::random(dtype, {num_experts, 2 * sizes.inner}, rng);
    down_bias = TestTensor::random(dtype, {num_experts, sizes.width}, rng);
    out_shape = {sizes.num_tokens, sizes.width};
  }
};

class ExpertsGpu : public CudaTest {
 protected:
  [[nodiscard]] TestTensor run(const Problem& problem,
                               bool biased,
                               const GatedActivationAttrs& attrs) const {
    const DeviceTensor x(problem.x);
    const DeviceTensor routes(problem.routes);
    const DeviceTensor gate_up(problem.gate_up);
    const DeviceTensor down(problem.down);
    const DeviceTensor gate_up_bias(problem.gate_up_bias);
    const DeviceTensor down_bias(problem.down_bias);
    const DeviceTensor out(poisoned(problem.x.view().dtype, problem.out_shape));
    const Status status = experts({x.view(),
                                   routes.view(),
                                   gate_up.view(),
                                   down.view(),
                                   biased ? gate_up_bias.view() : TensorView(),
                                   biased ? down_bias.view() : TensorView(),
                                   out.view(),
                                   attrs},
                                  stream());
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out.to_host(stream());
  }

  void expect_agreement(const Problem& problem,
                        const std::string& what,
                        std::initializer_list<GatedActivationAttrs> attrs = {
                            {}, {Activation::kQuickGelu, 7.0F}}) {
    const DType dtype = problem.x.view().dtype;
    bool biased = false;
    for (const GatedActivationAttrs& attr : attrs) {
      const TestTensor expected(dtype, problem.out_shape);
      ref::experts({problem.x.view(),
                    problem.routes.view(),
                    problem.gate_up.view(),
                    problem.down.view(),
                    biased ? problem.gate_up_bias.view() : TensorView(),
                    biased ? problem.down_bias.view() : TensorView(),
                    expected.view(),
                    attr});
      // Inner activations are rounded to the dtype on the way.
      const float inner = tolerance(dtype) / tolerance(DType::kF32);
      expect_near(run(problem, biased, attr),
                  expected,
                  10.0F * inner + 40.0F,
                  fmt::format("{} {} {}", dtype_name(dtype), what, biased ? "biased" : ""));
      if (HasFatalFailure()) return;
      biased = !biased;
    }
  }
};

TEST_F(ExpertsGpu, AgreeWithReference) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t num_tokens : {1, 3, 16, 65, 257}) {
      expect_agreement(
          Problem(dtype, {.num_tokens = num_tokens}, static_cast<uint64_t>(num_tokens)),
          fmt::format("{} tokens", num_tokens));
      if (HasFatalFailure()) return;
    }
  }
}

// Depths and widths that whole chunks, tiles or neither fit into.
TEST_F(ExpertsGpu, AgreeWithReferenceInOtherSizes) {
  for (const DType dtype : kFloatDTypes) {
    for (const Sizes& sizes :
         {Sizes{.num_tokens = 5, .depth = 7, .inner = 9, .width = 13},
          Sizes{.num_tokens = 40, .depth = 129, .inner = 65, .width = 67},
          Sizes{.num_tokens = 33, .depth = 128, .inner = 64, .width = 192},
          Sizes{.num_tokens = 300, .num_experts = 3, .top_k = 1, .depth = 64, .inner = 33},
          Sizes{.num_tokens = 70, .num_experts = 40, .top_k = 6, .inner = 16, .width = 300},
          Sizes{.num_tokens = 2, .num_experts = 1, .top_k = 1}}) {
      expect_agreement(Problem(dtype, sizes, 3),
                       fmt::format("{} tokens, {} experts, {} to {} to {}",
                                   sizes.num_tokens,
                                   sizes.num_experts,
                                   sizes.depth,
                                   sizes.inner,
                                   sizes.width));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(ExpertsGpu, TakeEveryActivation) {
  const Problem problem(DType::kF32, {.num_tokens = 9}, 8);
  for (const Activation activation : {Activation::kRelu,
                                      Activation::kReluSquared,
                                      Activation::kSilu,
                                      Activation::kGelu,
                                      Activation::kGeluTanh,
                                      Activation::kQuickGelu,
                                      Activation::kSigmoid}) {
    expect_agreement(
        problem, std::string(activation_name(activation)), {{activation}, {activation, 0.5F}});
    if (HasFatalFailure()) return;
  }
}

// More tiles than one pass holds: two tokens go to nearly all of 512 experts with wide results.
TEST_F(ExpertsGpu, SeveralPassesAreAsOne) {
  const Sizes sizes = {
      .num_tokens = 2, .num_experts = 512, .top_k = 3000, .depth = 8, .inner = 8, .width = 9000};
  expect_agreement(Problem(DType::kF32, sizes, 12), "several passes");
}

TEST_F(ExpertsGpu, NobodyRoutedGivesZeros) {
  for (const int64_t num_tokens : {3, 300}) {
    const Problem problem(DType::kBF16, {.num_tokens = num_tokens, .top_k = 0}, 5);
    const TestTensor out = run(problem, true, {});
    for (int64_t i = 0; i < out.size(); ++i) ASSERT_EQ(out.at(i), 0.0F) << i;
  }
}

TEST_F(ExpertsGpu, TakeStridedRows) {
  for (const DType dtype : kFloatDTypes) {
    const Problem problem(dtype, {.num_tokens = 20, .depth = 64}, 9);
    Rng rng(1);
    const TestTensor wide = TestTensor::random(dtype, {20, 101}, rng);
    const TestTensor expected = poisoned(dtype, {20, 80});
    ref::experts({wide.view().columns(5, 64),
                  problem.routes.view(),
                  problem.gate_up.view(),
                  problem.down.view(),
                  {},
                  {},
                  expected.view().columns(3, 72),
                  {}});
    const DeviceTensor x(wide);
    const DeviceTensor routes(problem.routes);
    const DeviceTensor gate_up(problem.gate_up);
    const DeviceTensor down(problem.down);
    const DeviceTensor out(poisoned(dtype, {20, 80}));
    ASSERT_TRUE(experts({x.view().columns(5, 64),
                         routes.view(),
                         gate_up.view(),
                         down.view(),
                         {},
                         {},
                         out.view().columns(3, 72),
                         {}},
                        stream())
                    .ok());
    const TestTensor actual = out.to_host(stream());
    for (int64_t i = 0; i < actual.size(); ++i) {
      if (i % 80 >= 3 && i % 80 < 75) {
        const double allowed = 20 * double{tolerance(dtype)};
        ASSERT_NEAR(actual.at(i), expected.at(i), allowed) << dtype_name(dtype) << " " << i;
      } else {
        ASSERT_TRUE(std::isnan(actual.at(i))) << "element " << i << " was written";
      }
    }
  }
}

TEST_F(ExpertsGpu, TheSameTwiceIsTheSameBits) {
  const Problem problem(DType::kBF16, {.num_tokens = 100, .top_k = 4}, 21);
  EXPECT_EQ(run(problem, true, {}), run(problem, true, {}));
}

}  // namespace
}  // namespace lamina::kernels
