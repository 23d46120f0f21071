#include "kernels/quantized.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "device/buffer.h"
#include "kernels/ref/linear.h"
#include "kernels/ref/quantized.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {
namespace {

constexpr BlockFormat kFormats[] = {BlockFormat::kInt8, BlockFormat::kInt4};

std::string name_of(BlockFormat format) {
  return format == BlockFormat::kInt8 ? "int8" : "int4";
}

// A matrix of random integers and scales, with memory of its own.
class TestMatrix {
 public:
  TestMatrix(BlockFormat format, int64_t rows, int64_t columns, uint64_t seed) {
    matrix_ = {.format = format, .rows = rows, .columns = columns};
    memory_ = Buffer(MemoryKind::kHost, matrix_.size_bytes());
    matrix_.data = memory_.data();
    Rng rng(seed);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t block = 0; block < matrix_.num_blocks(); ++block) {
        std::array<uint8_t, kQuantBlock> quants{};
        for (uint8_t& quant : quants) {
          quant = static_cast<uint8_t>(rng.next_below(format == BlockFormat::kInt4 ? 16 : 256));
        }
        const Float16 scale = to_f16((rng.next_float() + 0.5F) / 64.0F);
        const Float16 minimum = to_f16(rng.next_float() / -8.0F);
        matrix_.set_block(row, block, quants, scale, minimum);
      }
    }
  }
  [[nodiscard]] const QuantizedMatrix& view() const { return matrix_; }
  // The values of the elements.
  [[nodiscard]] TestTensor dense() const {
    TestTensor dense(DType::kF32, {matrix_.rows, matrix_.columns});
    for (int64_t row = 0; row < matrix_.rows; ++row) {
      for (int64_t block = 0; block < matrix_.num_blocks(); ++block) {
        std::array<float, kQuantBlock> values{};
        matrix_.get_block(row, block, values);
        for (size_t i = 0; i < values.size(); ++i) {
          dense.set(row * matrix_.columns + block * kQuantBlock + static_cast<int64_t>(i),
                    values[i]);
        }
      }
    }
    return dense;
  }

 private:
  Buffer memory_{MemoryKind::kHost, 0};
  QuantizedMatrix matrix_;
};

TestTensor run(const TestTensor& x,
               const QuantizedMatrix& weight,
               const TensorView& bias,
               DType out_dtype,
               int num_threads) {
  TestTensor out(out_dtype, {x.view().shape[0], weight.rows});
  out.poison();
  ThreadPool pool(num_threads);
  EXPECT_TRUE(quantized_linear({x.view(), weight, bias, out.view()}, StreamView(pool)).ok());
  return out;
}

TEST(QuantizedMatrix, BlocksAreReadBackAsTheyWereWritten) {
  for (const BlockFormat format : kFormats) {
    QuantizedMatrix matrix{.format = format, .rows = 21, .columns = 96};
    const Buffer memory(MemoryKind::kHost, matrix.size_bytes());
    matrix.data = memory.data();
    const auto quant_at = [&](int64_t row, int64_t block, int64_t i) {
      const auto hash = static_cast<uint64_t>((row * 3 + block) * 131 + i * 37);
      return static_cast<uint8_t>(hash % (format == BlockFormat::kInt4 ? 16 : 256));
    };
    const auto scale_at = [](int64_t row, int64_t block) {
      return 0.25F * static_cast<float>(row + 1) + static_cast<float>(block);
    };
    std::array<uint8_t, kQuantBlock> quants{};
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t block = 0; block < 3; ++block) {
        for (size_t i = 0; i < quants.size(); ++i) {
          quants[i] = quant_at(row, block, static_cast<int64_t>(i));
        }
        matrix.set_block(
            row, block, quants, to_f16(scale_at(row, block)), to_f16(-scale_at(row, block)));
      }
    }
    std::array<float, kQuantBlock> values{};
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t block = 0; block < 3; ++block) {
        matrix.get_block(row, block, values);
        const float offset = format == BlockFormat::kInt4 ? 1.0F : 128.0F;
        for (size_t i = 0; i < values.size(); ++i) {
          const auto quant = static_cast<float>(quant_at(row, block, static_cast<int64_t>(i)));
          ASSERT_EQ(values[i], scale_at(row, block) * (quant - offset))
              << name_of(format) << " row " << row << " block " << block << " column " << i;
        }
      }
    }
  }
}

TEST(QuantizedLinear, AgreesWithReference) {
  uint64_t seed = 1;
  for (const BlockFormat format : kFormats) {
    for (const DType dtype : kFloatDTypes) {
      for (const DType out_dtype : {DType::kF32, dtype}) {
        for (const int64_t m : {1, 2, 3, 7, 8, 9, 19}) {
          for (const auto& [n, k] : {std::pair{1, 32}, {16, 64}, {37, 96}, {50, 576}}) {
            Rng rng(++seed);
            const TestMatrix weight(format, n, k, seed);
            const TestTensor x = TestTensor::random(dtype, {m, k}, rng);
            const TestTensor bias = TestTensor::random(dtype, {n}, rng);
            for (const bool has_bias : {false, true}) {
              const TensorView bias_view = has_bias ? bias.view() : TensorView();
              TestTensor expected(out_dtype, {m, n});
              ref::quantized_linear({x.view(), weight.view(), bias_view, expected.view()});
              expect_near(run(x, weight.view(), bias_view, out_dtype, 2),
                          expected,
                          std::sqrt(static_cast<float>(k)),
                          fmt::format("{} {} m {} n {} k {} seed {}",
                                      name_of(format),
                                      dtype_name(dtype),
                                      m,
                                      n,
                                      k,
                                      seed));
            }
          }
        }
      }
    }
  }
}

// The stated bound: that of rounding x.
TEST(QuantizedLinear, IsOffByNoMoreThanRoundingX) {
  for (const BlockFormat format : kFormats) {
    constexpr int64_t kColumns = 256;
    constexpr int64_t kRows = 40;
    Rng rng(5);
    const TestMatrix weight(format, kRows, kColumns, 5);
    const TestTensor dense = weight.dense();
    const TestTensor x = TestTensor::random(DType::kF32, {9, kColumns}, rng);
    TestTensor exact(DType::kF32, {9, kRows});
    ref::linear({x.view(), dense.view(), {}, exact.view()});
    const TestTensor out = run(x, weight.view(), {}, DType::kF32, 1);
    for (int64_t token = 0; token < 9; ++token) {
      for (int64_t n = 0; n < kRows; ++n) {
        float bound = 1e-4F;
        for (int64_t k = 0; k < kColumns; ++k) {
          bound += std::fabs(dense.at(n * kColumns + k)) / 254.0F;  // x lies within 1
        }
        ASSERT_NEAR(out.at(token * kRows + n), exact.at(token * kRows + n), bound);
      }
    }
  }
}

TEST(QuantizedLinear, RowsDependOnNothingElse) {
  for (const BlockFormat format : kFormats) {
    Rng rng(7);
    const TestMatrix weight(format, 203, 288, 7);
    const TestTensor x = TestTensor::random(DType::kBF16, {67, 288}, rng);
    const TestTensor all = run(x, weight.view(), {}, DType::kF32, 1);
    ASSERT_EQ(run(x, weight.view(), {}, DType::kF32, 3), all);
    for (const int64_t count : {1, 2, 5, 9, 33}) {
      for (const int64_t begin : {0, 5, 34}) {
        TestTensor out(DType::kF32, {count, 203});
        ThreadPool pool(2);
        ASSERT_TRUE(quantized_linear({x.view().rows(begin, count), weight.view(), {}, out.view()},
                                     StreamView(pool))
                        .ok());
        ASSERT_EQ(0,
                  std::memcmp(
                      out.view().data, all.view().rows(begin, count).data, out.view().size_bytes()))
            << name_of(format) << " rows " << begin << " + " << count;
      }
    }
  }
}

TEST(QuantizedLinear, ZerosGiveTheBias) {
  const TestMatrix weight(BlockFormat::kInt4, 5, 64, 3);
  Rng rng(3);
  const TestTensor x(DType::kF32, {2, 64});
  const TestTensor bias = TestTensor::random(DType::kF32, {5}, rng);
  const TestTensor out = run(x, weight.view(), bias.view(), DType::kF32, 1);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(out.at(i), bias.at(i % 5));
}

TEST(QuantizedLinear, RefusesWhatDoesNotFit) {
  const TestMatrix weight(BlockFormat::kInt8, 4, 32, 1);
  const TestTensor x(DType::kF32, {2, 32});
  const TestTensor bias(DType::kF32, {4});
  const TestTensor out(DType::kF32, {2, 4});
  ThreadPool pool(1);
  const QuantizedLinearArgs good = {x.view(), weight.view(), bias.view(), out.view()};
  ASSERT_TRUE(quantized_linear(good, StreamView(pool)).ok());
  std::vector<QuantizedLinearArgs> bad(6, good);
  bad[0].weight.data = nullptr;
  bad[1].weight.columns = 64;
  bad[2].weight.rows = 5;
  bad[3].bias = x.view();
  bad[4].out = TensorView();
  bad[5].x.dtype = DType::kI32;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(quantized_linear(bad[i], StreamView(pool)).code(), StatusCode::kInvalidArgument) << i;
  }
}

TEST(QuantizedEmbedding, PicksRows) {
  for (const BlockFormat format : kFormats) {
    const TestMatrix table(format, 20, 64, 9);
    const TestTensor dense = table.dense();
    const TestTensor ids = TestTensor::of_i32({3, 19, 0, 3});
    const TestTensor out(DType::kF32, {4, 64});
    ThreadPool pool(1);
    ASSERT_TRUE(quantized_embedding(table.view(), ids.view(), out.view(), StreamView(pool)).ok());
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t id = *ids.view().row<int32_t>(i);
      for (int64_t k = 0; k < 64; ++k) ASSERT_EQ(out.at(i * 64 + k), dense.at(id * 64 + k));
    }
    const TestTensor wrong = TestTensor::of_i32({3, 20, 0, 3});
    EXPECT_EQ(quantized_embedding(table.view(), wrong.view(), out.view(), StreamView(pool)).code(),
              StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lamina::kernels
