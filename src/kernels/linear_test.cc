#include "kernels/linear.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/ref/linear.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

struct Problem {
  TestTensor x;
  TestTensor weight;
  TestTensor bias;
};

Problem make_problem(DType dtype, int64_t m, int64_t n, int64_t k, uint64_t seed) {
  Rng rng(seed);
  return {TestTensor::random(dtype, {m, k}, rng),
          TestTensor::random(dtype, {n, k}, rng),
          TestTensor::random(dtype, {n}, rng)};
}

TestTensor run(const Problem& problem, DType out_dtype, bool has_bias, int num_threads) {
  const TensorView x = problem.x.view();
  TestTensor out(out_dtype, {x.shape[0], problem.weight.view().shape[0]});
  out.poison();
  ThreadPool pool(num_threads);
  const TensorView bias = has_bias ? problem.bias.view() : TensorView();
  EXPECT_TRUE(linear({x, problem.weight.view(), bias, out.view()}, StreamView(pool)).ok());
  return out;
}

TEST(Linear, AgreesWithReference) {
  for_each_target([&] {
    uint64_t seed = 1;
    for (const DType dtype : kFloatDTypes) {
      for (const DType out_dtype : {DType::kF32, dtype}) {
        for (const int64_t m : {1, 2, 3, 4, 5, 9}) {
          for (const auto& [n, k] :
               {std::pair{1, 1}, {5, 7}, {8, 32}, {37, 64}, {33, 100}, {70, 577}}) {
            const Problem problem = make_problem(dtype, m, n, k, ++seed);
            for (const bool has_bias : {false, true}) {
              TestTensor expected(out_dtype, {m, n});
              ref::linear({problem.x.view(),
                           problem.weight.view(),
                           has_bias ? problem.bias.view() : TensorView(),
                           expected.view()});
              expect_near(
                  run(problem, out_dtype, has_bias, 1),
                  expected,
                  std::sqrt(static_cast<float>(k)),
                  fmt::format("{} m {} n {} k {} seed {}", dtype_name(dtype), m, n, k, seed));
            }
          }
        }
      }
    }
  });
}

TEST(Linear, RowsDependOnNothingElse) {
  for_each_target([&] {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t k : {64, 131, 576}) {
        const int64_t m = 67;
        const Problem all = make_problem(dtype, m, 203, k, 7);
        const TestTensor expected = run(all, DType::kF32, true, 1);
        ASSERT_EQ(run(all, DType::kF32, true, 2), expected);
        ASSERT_EQ(run(all, DType::kF32, true, 3), expected);
        for (const int64_t count : {1, 2, 3, 4, 6, 33}) {
          for (const int64_t begin : {0, 5, 34}) {
            TestTensor out(DType::kF32, {count, 203});
            ThreadPool pool(2);
            ASSERT_TRUE(linear({all.x.view().rows(begin, count),
                                all.weight.view(),
                                all.bias.view(),
                                out.view()},
                               StreamView(pool))
                            .ok());
            ASSERT_EQ(0,
                      std::memcmp(out.view().data,
                                  expected.view().rows(begin, count).data,
                                  out.view().size_bytes()))
                << dtype_name(dtype) << " rows " << begin << " + " << count << " of k " << k;
          }
        }
      }
    }
  });
}

// Tensor parallelism gives a rank some of the weight's rows: its columns must be the same bits.
TEST(Linear, ColumnsDependOnNothingElse) {
  const Problem all = make_problem(DType::kBF16, 3, 64, 96, 11);
  const TestTensor expected = run(all, DType::kF32, false, 2);
  for (const int64_t begin : {0, 3, 17}) {
    TestTensor out(DType::kF32, {3, 9});
    ThreadPool pool(1);
    ASSERT_TRUE(
        linear({all.x.view(), all.weight.view().rows(begin, 9), {}, out.view()}, StreamView(pool))
            .ok());
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t n = 0; n < 9; ++n) {
        ASSERT_EQ(out.at(t * 9 + n), expected.at(t * 64 + begin + n));
      }
    }
  }
}

TEST(Linear, TakesStridedRowsAndColumns) {
  Rng rng(3);
  const TestTensor wide = TestTensor::random(DType::kF32, {5, 96}, rng);
  const TestTensor weight = TestTensor::random(DType::kF32, {10, 40}, rng);
  TestTensor out(DType::kF32, {5, 30});
  TestTensor expected(DType::kF32, {5, 30});
  const LinearArgs args = {
      wide.view().columns(8, 40), weight.view(), {}, out.view().columns(4, 10)};
  LinearArgs ref_args = args;
  ref_args.out = expected.view().columns(4, 10);
  ThreadPool pool(2);
  ASSERT_TRUE(linear(args, StreamView(pool)).ok());
  ref::linear(ref_args);
  expect_near(out, expected, 6.0F, "strided");
}

TEST(Linear, NoRowsIsNoWork) {
  const Problem problem = make_problem(DType::kF32, 0, 4, 8, 1);
  EXPECT_EQ(run(problem, DType::kF32, true, 2).size(), 0);
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const Problem good = make_problem(DType::kF32, 2, 4, 8, 1);
  const TestTensor out(DType::kF32, {2, 4});
  ThreadPool pool(1);
  const LinearArgs args = {good.x.view(), good.weight.view(), good.bias.view(), out.view()};
  ASSERT_TRUE(linear(args, StreamView(pool)).ok());

  const TestTensor other(DType::kBF16, {4, 8});
  const TestTensor ids(DType::kI32, {2, 8});
  std::vector<LinearArgs> bad(9, args);
  bad[0].x = TensorView();
  bad[1].x = ids.view();
  bad[2].weight = other.view();
  bad[3].weight = good.x.view();  // out and bias no longer fit
  bad[4].weight = out.view();     // depth differs
  bad[5].bias = good.x.view();
  bad[6].out = other.view();
  bad[7].out = TensorView();
  bad[8].weight.tensor.row_stride = 9;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(linear(bad[i], StreamView(pool)).code(), StatusCode::kInvalidArgument) << i;
  }
}

}  // namespace
}  // namespace lamina::kernels
