#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "kernels/linear.h"
#include "kernels/ref/linear.h"
#include "kernels/rows.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr PackedFormat kQuantizedFormats[] = {PackedFormat::kInt8, PackedFormat::kInt4};

bool takes(PackedFormat format, DType x_dtype) {
  return is_quantized(format) || x_dtype == DType::kBF16;
}

// The values of the elements.
TestTensor dense(const PackedMatrix& matrix) {
  TestTensor values(DType::kF32, {matrix.rows, matrix.columns});
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
      std::array<float, kBlockColumns> of_block{};
      matrix.get_block(row, block, of_block);
      for (size_t i = 0; i < of_block.size(); ++i) {
        values.set(row * matrix.columns + block * kBlockColumns + static_cast<int64_t>(i),
                   of_block[i]);
      }
    }
  }
  return values;
}

TestTensor run(const TestTensor& x,
               const PackedMatrix& weight,
               const TensorView& bias,
               DType out_dtype,
               int num_threads) {
  TestTensor out(out_dtype, {x.view().shape[0], weight.rows});
  out.poison();
  ThreadPool pool(num_threads);
  EXPECT_TRUE(linear({x.view(), weight, bias, out.view()}, StreamView(pool)).ok());
  return out;
}

TEST(PackedMatrix, RowsOfPairsAreReadBackAsTheyWereWritten) {
  Rng rng(3);
  const PackedWeight stack(PackedFormat::kPairs, 3, 21, 96, 3);
  const TestTensor rows = TestTensor::random(DType::kBF16, {63, 96}, rng);
  for (int64_t row = 0; row < 63; ++row) {
    stack.view().set_row(row, {rows.view().row<BFloat16>(row), 96});
  }
  for (int64_t i = 0; i < 3; ++i) {
    const TestTensor values = dense(stack.view().matrix(i));
    for (int64_t k = 0; k < values.size(); ++k) {
      ASSERT_EQ(values.at(k), rows.at(i * 21 * 96 + k)) << "matrix " << i << " element " << k;
    }
  }
}

// Memory that held something else becomes, byte by byte, what zeroed memory would.
TEST(PackedMatrix, PaddingIsCleared) {
  for (const PackedFormat format : kPackedFormats) {
    for (const int64_t rows : {21, 32}) {
      const PackedWeight expected(format, 3, rows, 96, 5);
      const size_t size_bytes = expected.view().size_bytes();
      const Buffer used(MemoryKind::kHost, size_bytes);
      std::memset(used.data(), 0xA5, size_bytes);
      PackedMatrix matrix = expected.view();
      matrix.data = used.data();
      matrix.clear_padding();
      PackedWeight::fill(matrix, 5);
      EXPECT_EQ(0, std::memcmp(used.data(), expected.view().data, size_bytes)) << name_of(format);
    }
  }
}

TEST(PackedMatrix, BlocksAreReadBackAsTheyWereWritten) {
  for (const PackedFormat format : kQuantizedFormats) {
    PackedMatrix matrix{.format = format, .rows = 21, .columns = 96};
    const Buffer memory(MemoryKind::kHost, matrix.size_bytes());
    matrix.data = memory.data();
    const auto quant_at = [&](int64_t row, int64_t block, int64_t i) {
      const auto hash = static_cast<uint64_t>((row * 3 + block) * 131 + i * 37);
      return static_cast<uint8_t>(hash % (format == PackedFormat::kInt4 ? 16 : 256));
    };
    const auto scale_at = [](int64_t row, int64_t block) {
      return 0.25F * static_cast<float>(row + 1) + static_cast<float>(block);
    };
    std::array<uint8_t, kBlockColumns> quants{};
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t block = 0; block < 3; ++block) {
        for (size_t i = 0; i < quants.size(); ++i) {
          quants[i] = quant_at(row, block, static_cast<int64_t>(i));
        }
        matrix.set_block(
            row, block, quants, to_f16(scale_at(row, block)), to_f16(-scale_at(row, block)));
      }
    }
    std::array<float, kBlockColumns> values{};
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t block = 0; block < 3; ++block) {
        matrix.get_block(row, block, values);
        const float offset = format == PackedFormat::kInt4 ? 1.0F : 128.0F;
        for (size_t i = 0; i < values.size(); ++i) {
          const auto quant = static_cast<float>(quant_at(row, block, static_cast<int64_t>(i)));
          ASSERT_EQ(values[i], scale_at(row, block) * (quant - offset))
              << name_of(format) << " row " << row << " block " << block << " column " << i;
        }
      }
    }
  }
}

// Up to more tokens than stay in the cache, and to several depth blocks.
constexpr std::array<std::array<int64_t, 3>, 14> kSizes = {{{1, 1, 32},
                                                            {2, 16, 64},
                                                            {3, 37, 96},
                                                            {7, 50, 576},
                                                            {8, 33, 64},
                                                            {9, 48, 2080},
                                                            {14, 20, 96},
                                                            {15, 33, 64},
                                                            {16, 50, 2080},
                                                            {17, 16, 32},
                                                            {19, 50, 576},
                                                            {33, 18, 4128},
                                                            {48, 37, 64},
                                                            {130, 17, 2080}}};

TEST(PackedLinear, AgreesWithReference) {
  for_each_target([] {
    uint64_t seed = 1;
    for (const PackedFormat format : kPackedFormats) {
      for (const DType dtype : kFloatDTypes) {
        if (!takes(format, dtype)) continue;
        for (const auto& [m, n, k] : kSizes) {
          Rng rng(++seed);
          const PackedWeight weight(format, 0, n, k, seed);
          const TestTensor x = TestTensor::random(dtype, {m, k}, rng);
          const TestTensor bias = TestTensor::random(dtype, {n}, rng);
          const TensorView bias_view = seed % 2 == 0 ? bias.view() : TensorView();
          for (const DType out_dtype : {DType::kF32, dtype}) {
            TestTensor expected(out_dtype, {m, n});
            ref::linear({x.view(), weight.view(), bias_view, expected.view()});
            expect_near(
                run(x, weight.view(), bias_view, out_dtype, 2),
                expected,
                std::sqrt(static_cast<float>(k)),
                fmt::format("{} {} m {} n {} k {}", name_of(format), dtype_name(dtype), m, n, k));
          }
        }
      }
    }
  });
}

// The stated bound: that of rounding x.
TEST(PackedLinear, QuantizedIsOffByNoMoreThanRoundingX) {
  for (const PackedFormat format : kQuantizedFormats) {
    constexpr int64_t kColumns = 256;
    constexpr int64_t kRows = 40;
    Rng rng(5);
    const PackedWeight weight(format, 0, kRows, kColumns, 5);
    const TestTensor values = dense(weight.view());
    const TestTensor x = TestTensor::random(DType::kF32, {9, kColumns}, rng);
    TestTensor exact(DType::kF32, {9, kRows});
    ref::linear({x.view(), values.view(), {}, exact.view()});
    const TestTensor out = run(x, weight.view(), {}, DType::kF32, 1);
    for (int64_t token = 0; token < 9; ++token) {
      for (int64_t n = 0; n < kRows; ++n) {
        float bound = 1e-4F;
        for (int64_t k = 0; k < kColumns; ++k) {
          bound += std::fabs(values.at(n * kColumns + k)) / 254.0F;  // x lies within 1
        }
        ASSERT_NEAR(out.at(token * kRows + n), exact.at(token * kRows + n), bound);
      }
    }
  }
}

TEST(PackedLinear, RowsDependOnNothingElse) {
  for_each_target([] {
    for (const PackedFormat format : kPackedFormats) {
      for (const int64_t k : {288, 4128}) {
        constexpr int64_t kTokens = 131;
        Rng rng(7);
        const PackedWeight weight(format, 0, 75, k, 7);
        const TestTensor x = TestTensor::random(DType::kBF16, {kTokens, k}, rng);
        const TestTensor all = run(x, weight.view(), {}, DType::kF32, 1);
        ASSERT_EQ(run(x, weight.view(), {}, DType::kF32, 3), all);
        for (const int64_t count : {1, 2, 5, 14, 15, 16, 17, 33}) {
          for (const int64_t begin : {0, 5, 34}) {
            TestTensor out(DType::kF32, {count, 75});
            ThreadPool pool(2);
            ASSERT_TRUE(linear({x.view().rows(begin, count), weight.view(), {}, out.view()},
                               StreamView(pool))
                            .ok());
            ASSERT_EQ(
                0,
                std::memcmp(
                    out.view().data, all.view().rows(begin, count).data, out.view().size_bytes()))
                << name_of(format) << " rows " << begin << " + " << count << " of k " << k;
          }
        }
      }
    }
  });
}

TEST(PackedLinear, ZerosGiveTheBias) {
  const PackedWeight weight(PackedFormat::kInt4, 0, 5, 64, 3);
  Rng rng(3);
  const TestTensor x(DType::kF32, {2, 64});
  const TestTensor bias = TestTensor::random(DType::kF32, {5}, rng);
  const TestTensor out = run(x, weight.view(), bias.view(), DType::kF32, 1);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(out.at(i), bias.at(i % 5));
}

TEST(PackedLinear, NoRowsIsNoWork) {
  for (const PackedFormat format : kPackedFormats) {
    const PackedWeight weight(format, 0, 4, 32, 1);
    EXPECT_EQ(run(TestTensor(DType::kBF16, {0, 32}), weight.view(), {}, DType::kBF16, 2).size(), 0);
  }
}

TEST(PackedLinear, TakesStridedRowsAndColumns) {
  for_each_target([] {
    for (const PackedFormat format : kPackedFormats) {
      Rng rng(3);
      const TestTensor wide = TestTensor::random(DType::kBF16, {5, 128}, rng);
      const PackedWeight weight(format, 0, 10, 64, 3);
      TestTensor out(DType::kBF16, {5, 30});
      TestTensor expected(DType::kBF16, {5, 30});
      const LinearArgs args = {
          wide.view().columns(8, 64), weight.view(), {}, out.view().columns(4, 10)};
      LinearArgs ref_args = args;
      ref_args.out = expected.view().columns(4, 10);
      ThreadPool pool(2);
      ASSERT_TRUE(linear(args, StreamView(pool)).ok());
      ref::linear(ref_args);
      expect_near(out, expected, 8.0F, name_of(format));
    }
  });
}

TEST(PackedLinear, RefusesWhatDoesNotFit) {
  const PackedWeight weight(PackedFormat::kInt8, 0, 4, 32, 1);
  const PackedWeight pairs(PackedFormat::kPairs, 0, 4, 32, 1);
  const TestTensor x(DType::kF32, {2, 32});
  const TestTensor bias(DType::kF32, {4});
  const TestTensor out(DType::kF32, {2, 4});
  ThreadPool pool(1);
  const LinearArgs good = {x.view(), weight.view(), bias.view(), out.view()};
  ASSERT_TRUE(linear(good, StreamView(pool)).ok());
  std::vector<LinearArgs> bad(7, good);
  bad[0].weight.packed.data = nullptr;
  bad[1].weight.packed.columns = 64;
  bad[2].weight.packed.rows = 5;
  bad[3].bias = x.view();
  bad[4].out = TensorView();
  bad[5].x.dtype = DType::kI32;
  bad[6].weight = pairs.view();  // x is no bf16
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(linear(bad[i], StreamView(pool)).code(), StatusCode::kInvalidArgument) << i;
  }
}

TEST(PackedHeadLinear, AgreesWithReferenceAndIsBatchInvariant) {
  for_each_target([] {
    for (const PackedFormat format : kPackedFormats) {
      Rng rng(4);
      const TestTensor x = TestTensor::random(DType::kBF16, {5, 3, 64}, rng);
      const PackedWeight weight(format, 3, 40, 64, 4);
      const TestTensor out(DType::kBF16, {5, 3, 40});
      const TestTensor expected(DType::kBF16, {5, 3, 40});
      ThreadPool pool(2);
      ASSERT_TRUE(head_linear(x.view(), weight.view(), out.view(), StreamView(pool)).ok());
      ref::head_linear(x.view(), weight.view(), expected.view());
      expect_near(out, expected, 8.0F, name_of(format));
      const TestTensor one(DType::kBF16, {1, 3, 40});
      ASSERT_TRUE(
          head_linear(x.view().rows(3, 1), weight.view(), one.view(), StreamView(pool)).ok());
      for (int64_t i = 0; i < one.size(); ++i) ASSERT_EQ(one.at(i), out.at(9 * 40 + i));
    }
  });
}

TEST(PackedEmbedding, PicksRows) {
  for (const PackedFormat format : kPackedFormats) {
    const PackedWeight table(format, 0, 20, 64, 9);
    const TestTensor values = dense(table.view());
    const TestTensor ids = TestTensor::of_i32({3, 19, 0, 3});
    const TestTensor out(DType::kF32, {4, 64});
    ThreadPool pool(1);
    ASSERT_TRUE(embedding(table.view(), ids.view(), out.view(), StreamView(pool)).ok());
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t id = *ids.view().row<int32_t>(i);
      for (int64_t k = 0; k < 64; ++k) ASSERT_EQ(out.at(i * 64 + k), values.at(id * 64 + k));
    }
    const TestTensor wrong = TestTensor::of_i32({3, 20, 0, 3});
    EXPECT_EQ(embedding(table.view(), wrong.view(), out.view(), StreamView(pool)).code(),
              StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lamina::kernels
