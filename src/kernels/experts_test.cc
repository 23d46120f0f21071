#include "kernels/experts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/linear.h"
#include "kernels/pointwise.h"
#include "kernels/ref/experts.h"
#include "kernels/ref/linear.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

TEST(Route, AgreesWithReference) {
  ThreadPool pool(2);
  const StreamView stream(pool);
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
    Rng rng(11);
    const TestTensor logits = TestTensor::random(DType::kF32, {17, 24}, rng, 4.0F);
    const TestTensor bias = TestTensor::random(DType::kBF16, {24}, rng, 0.5F);
    for (const TensorView& shift : {TensorView(), bias.view()}) {
      TestTensor out(DType::kF32, {17, 24});
      const TestTensor expected(DType::kF32, {17, 24});
      out.poison();
      ASSERT_TRUE(route(logits.view(), shift, attrs, out.view(), stream).ok());
      ref::route(logits.view(), shift, attrs, expected.view());
      expect_near(out, expected, 0.1F, fmt::format("top_k {}", attrs.top_k));
    }
  }
}

TEST(Route, EqualScoresGoToTheSmallerIndexAndNaNDoesNoHarm) {
  ThreadPool pool(1);
  TestTensor logits(DType::kF32, {2, 6});
  for (int64_t i = 0; i < 6; ++i) logits.set(i, 1.0F);
  for (int64_t i = 6; i < 12; ++i) logits.set(i, i == 8 ? NAN : 0.0F);
  TestTensor out(DType::kF32, {2, 6});
  const RouteAttrs attrs{.top_k = 2, .renormalize = true};
  ASSERT_TRUE(route(logits.view(), {}, attrs, out.view(), StreamView(pool)).ok());
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(out.at(i), i < 2 ? 0.5F : 0.0F);
}

struct Problem {
  TestTensor x, routes, gate_up, down, gate_up_bias, down_bias;

  Problem(DType dtype, int64_t num_tokens, int64_t num_experts, int64_t top_k, uint64_t seed) {
    Rng rng(seed);
    constexpr int64_t kWidth = 72;
    constexpr int64_t kInner = 100;
    x = TestTensor::random(dtype, {num_tokens, kWidth}, rng);
    routes = TestTensor(DType::kF32, {num_tokens, num_experts});
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t i = 0; i < top_k; ++i) {
        const auto expert =
            static_cast<int64_t>(rng.next_below(static_cast<uint64_t>(num_experts)));
        routes.set(t * num_experts + expert, rng.next_float() + 0.1F);
      }
    }
    gate_up = TestTensor::random(dtype, {num_experts, 2 * kInner, kWidth}, rng, 0.3F);
    down = TestTensor::random(dtype, {num_experts, kWidth, kInner}, rng, 0.3F);
    gate_up_bias = TestTensor::random(dtype, {num_experts, 2 * kInner}, rng);
    down_bias = TestTensor::random(dtype, {num_experts, kWidth}, rng);
  }
  [[nodiscard]] ExpertsArgs args(const TestTensor& out, bool biased) const {
    return {x.view(),
            routes.view(),
            gate_up.view(),
            down.view(),
            biased ? gate_up_bias.view() : TensorView(),
            biased ? down_bias.view() : TensorView(),
            out.view(),
            biased ? GatedActivationAttrs{Activation::kQuickGelu, 7.0F} : GatedActivationAttrs{}};
  }
  [[nodiscard]] TestTensor run(bool biased, int num_threads) const {
    TestTensor out(x.view().dtype, x.view().shape);
    out.poison();
    ThreadPool pool(num_threads);
    EXPECT_TRUE(experts(args(out, biased), StreamView(pool)).ok());
    return out;
  }
};

TEST(Experts, AgreeWithReference) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t num_tokens : {1, 2, 5, 33}) {
        for (const bool biased : {false, true}) {
          const Problem problem(dtype, num_tokens, 6, 2, static_cast<uint64_t>(num_tokens));
          const TestTensor out = problem.run(biased, 2);
          const TestTensor expected(dtype, out.view().shape);
          ref::experts(problem.args(expected, biased));
          // Inner activations are rounded to the dtype on the way.
          const float inner = tolerance(dtype) / tolerance(DType::kF32);
          expect_near(out,
                      expected,
                      10.0F * inner + 20.0F,
                      fmt::format("{} tokens {}", dtype_name(dtype), num_tokens));
        }
      }
    }
  });
}

TEST(Experts, ATokenDoesNotSeeItsBatch) {
  for (const DType dtype : kFloatDTypes) {
    const Problem problem(dtype, 19, 4, 2, 5);
    const TestTensor all = problem.run(true, 3);
    ASSERT_EQ(all, problem.run(true, 1));
    for (int64_t t = 0; t < 19; ++t) {
      TestTensor one(dtype, {1, 72});
      ExpertsArgs args = problem.args(one, true);
      args.x = args.x.rows(t, 1);
      args.routes = args.routes.rows(t, 1);
      ThreadPool pool(2);
      ASSERT_TRUE(experts(args, StreamView(pool)).ok());
      for (int64_t i = 0; i < 72; ++i) ASSERT_EQ(one.at(i), all.at(t * 72 + i)) << t;
    }
  }
}

// out[t] of experts(), put together from the operators that it stands for.
std::vector<float> sum_of_experts(const ExpertsArgs& args, int64_t t) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const Shape down = args.down.shape();
  std::vector<float> sums(static_cast<size_t>(down[1]));
  for (int64_t expert = 0; expert < down[0]; ++expert) {
    const float weight = args.routes.row<float>(t)[expert];
    if (weight == 0.0F) continue;
    const TestTensor gate_up(DType::kBF16, {1, 2 * down[2]});
    const TestTensor inner(DType::kBF16, {1, down[2]});
    const TestTensor result(DType::kF32, {1, down[1]});
    EXPECT_TRUE(
        linear({args.x.rows(t, 1), args.gate_up.matrix(expert), {}, gate_up.view()}, stream).ok());
    const TensorView halves(gate_up.view().data, DType::kBF16, {1, 2, down[2]});
    EXPECT_TRUE(gated_activation(halves, args.attrs, inner.view(), stream).ok());
    EXPECT_TRUE(linear({inner.view(), args.down.matrix(expert), {}, result.view()}, stream).ok());
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += weight * result.at(static_cast<int64_t>(i));
  }
  return sums;
}

TEST(Experts, PackedAreWhatTheirProductsAre) {
  for_each_target([] {
    for (const PackedFormat format : kPackedFormats) {
      const Problem problem(DType::kBF16, 19, 4, 2, 5);
      const PackedWeight gate_up(format, 4, 192, 64, 1);
      const PackedWeight down(format, 4, 72, 96, 2);
      Rng rng(8);
      const TestTensor x = TestTensor::random(DType::kBF16, {19, 64}, rng);
      const TestTensor out(DType::kBF16, {19, 72});
      ExpertsArgs args = problem.args(out, false);
      args.x = x.view();
      args.gate_up = gate_up.view();
      args.down = down.view();
      ThreadPool pool(2);
      ASSERT_TRUE(experts(args, StreamView(pool)).ok());
      for (int64_t t = 0; t < 19; ++t) {
        const std::vector<float> sums = sum_of_experts(args, t);
        for (int64_t i = 0; i < 72; ++i) {
          ASSERT_EQ(out.at(t * 72 + i), to_f32(to_bf16(sums[static_cast<size_t>(i)])))
              << name_of(format) << " token " << t << " element " << i;
        }
      }
    }
  });
}

TEST(Experts, NobodyRoutedGivesZeros) {
  Problem problem(DType::kF32, 3, 4, 0, 5);
  const TestTensor out = problem.run(true, 1);
  for (int64_t i = 0; i < out.size(); ++i) EXPECT_EQ(out.at(i), 0.0F);
}

TEST(Experts, RefuseWhatDoesNotFit) {
  const Problem problem(DType::kF32, 3, 4, 2, 5);
  ThreadPool pool(1);
  const TestTensor out(DType::kF32, {3, 72});
  const TestTensor other(DType::kBF16, {4, 72});
  const std::vector<std::function<void(ExpertsArgs&)>> damages = {
      [](ExpertsArgs& args) { args.routes = args.routes.rows(0, 2); },
      [](ExpertsArgs& args) { args.gate_up = args.gate_up.tensor.columns(0, 198); },
      [](ExpertsArgs& args) { args.down = args.down.tensor.rows(0, 3); },
      [&](ExpertsArgs& args) { args.down_bias = other.view(); },
      [](ExpertsArgs& args) { args.out = args.out.columns(0, 71); }};
  for (size_t i = 0; i < damages.size(); ++i) {
    ExpertsArgs args = problem.args(out, true);
    damages[i](args);
    EXPECT_EQ(experts(args, StreamView(pool)).code(), StatusCode::kInvalidArgument) << i;
  }
  const TensorView logits = problem.routes.view();
  EXPECT_FALSE(route(logits, {}, {.top_k = 5}, logits, StreamView(pool)).ok());
  EXPECT_FALSE(route(logits, {}, {.top_k = 1, .num_groups = 3}, logits, StreamView(pool)).ok());
  EXPECT_FALSE(route(logits, out.view(), {.top_k = 1}, logits, StreamView(pool)).ok());
}

TEST(HeadLinear, AgreesWithReferenceAndIsBatchInvariant) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const auto& [n, k] : {std::pair{1, 1}, {7, 33}, {64, 16}, {40, 128}}) {
        Rng rng(4);
        const TestTensor x = TestTensor::random(dtype, {5, 3, k}, rng);
        const TestTensor weight = TestTensor::random(dtype, {3, n, k}, rng);
        TestTensor out(dtype, {5, 3, n});
        const TestTensor expected(dtype, {5, 3, n});
        ThreadPool pool(2);
        ASSERT_TRUE(head_linear(x.view(), weight.view(), out.view(), StreamView(pool)).ok());
        ref::head_linear(x.view(), weight.view(), expected.view());
        expect_near(out,
                    expected,
                    std::sqrt(static_cast<float>(k)),
                    fmt::format("{} n {} k {}", dtype_name(dtype), n, k));
        TestTensor one(dtype, {1, 3, n});
        ASSERT_TRUE(
            head_linear(x.view().rows(3, 1), weight.view(), one.view(), StreamView(pool)).ok());
        for (int64_t i = 0; i < one.size(); ++i) ASSERT_EQ(one.at(i), out.at(9 * n + i));
      }
    }
  });
  ThreadPool pool(1);
  const TestTensor x(DType::kF32, {5, 3, 8});
  const TestTensor weight(DType::kF32, {2, 4, 8});
  const TestTensor out(DType::kF32, {5, 3, 4});
  EXPECT_FALSE(head_linear(x.view(), weight.view(), out.view(), StreamView(pool)).ok());
}

}  // namespace
}  // namespace lamina::kernels
