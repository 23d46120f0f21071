// Tensors for the tests of this room: owned memory of any dtype, random contents, comparison.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "device/buffer.h"
#include "kernels/attention.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/ref/element.h"
#include "tensor/packed_matrix.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels {

inline constexpr DType kFloatDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
inline constexpr DType kCodeDTypes[] = {DType::kI8, DType::kF8E4M3};
inline constexpr DType kCacheDTypes[] = {
    DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kF8E4M3};

// Runs body() once with the kernels of each instruction set that this machine has: the dispatcher
// would test the best alone.
template <typename Body>
void for_each_target(const Body& body) {
  const int64_t supported = hwy::SupportedTargets();
  cpu::set_amx_use(false);
  cpu::set_bf16_dot_use(cpu::Bf16DotUse::kNever);
  for (const int64_t target : {int64_t{HWY_AVX2}, int64_t{HWY_AVX3}}) {
    if ((supported & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  cpu::set_bf16_dot_use(cpu::Bf16DotUse::kWhereSupported);
  if (cpu::uses_bf16_dot()) {
    SCOPED_TRACE("AVX512_BF16");
    body();
  }
  cpu::set_bf16_dot_use(cpu::Bf16DotUse::kWhereFast);
  cpu::set_amx_use(true);
  if (cpu::uses_amx()) {
    SCOPED_TRACE("AMX");
    body();
  }
}

// Of a test by the dtypes of its queries and its cache: "bfloat16_over_int8".
inline std::string name_of_dtypes(const testing::TestParamInfo<std::pair<DType, DType>>& test) {
  return std::string(dtype_name(test.param.first)) + "_over_" +
         std::string(dtype_name(test.param.second));
}

// Where the query tokens of a batch lie in the cache: the slot_mapping of its append_kv.
inline std::vector<int64_t> slots_of(const RaggedBatch& batch, int64_t block_size) {
  std::vector<int64_t> slots;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const auto i = static_cast<size_t>(b);
    const int64_t num_queries = batch.query_begin[i + 1] - batch.query_begin[i];
    for (int64_t p = batch.context_len[i] - num_queries; p < batch.context_len[i]; ++p) {
      const int64_t entry = b * batch.max_blocks + p / block_size;
      slots.push_back(batch.block_tables[static_cast<size_t>(entry)] * block_size + p % block_size);
    }
  }
  return slots;
}

// Zeroed; starts at an address with the alignment of its element and no more, as a tensor in a
// mapped file may.
class TestTensor {
 public:
  TestTensor() = default;
  TestTensor(DType dtype, const Shape& shape) : dtype_(dtype), shape_(shape) {
    bytes_.resize(static_cast<size_t>(shape.num_elements() + 1) * dtype_bytes(dtype));
  }

  static TestTensor random(DType dtype, const Shape& shape, Rng& rng, float scale = 1.0F) {
    TestTensor tensor(dtype, shape);
    for (int64_t i = 0; i < shape.num_elements(); ++i) {
      tensor.set(i, (rng.next_float() * 2.0F - 1.0F) * scale);
    }
    return tensor;
  }
  static TestTensor of_i32(const std::vector<int32_t>& values) {
    TestTensor tensor(DType::kI32, {static_cast<int64_t>(values.size())});
    for (size_t i = 0; i < values.size(); ++i) {
      tensor.view().row<int32_t>(0)[i] = values[i];
    }
    return tensor;
  }

  // An empty view of a tensor that was never made.
  [[nodiscard]] TensorView view() const {
    if (bytes_.empty()) return {};
    return {const_cast<std::byte*>(bytes_.data()) + dtype_bytes(dtype_), dtype_, shape_};
  }
  [[nodiscard]] float at(int64_t i) const { return ref::get(view(), 0, i); }
  void set(int64_t i, float value) { ref::put(view(), 0, i, value); }
  [[nodiscard]] int64_t size() const { return shape_.num_elements(); }
  // Sets every byte: of floats, to a NaN.
  void poison() { std::fill(bytes_.begin(), bytes_.end(), std::byte{0xFF}); }

  friend bool operator==(const TestTensor& a, const TestTensor& b) {
    if (a.dtype_ != b.dtype_ || !(a.shape_ == b.shape_)) return false;
    if (a.bytes_.empty() || b.bytes_.empty()) return a.bytes_.empty() == b.bytes_.empty();
    return std::memcmp(a.view().data, b.view().data, a.view().size_bytes()) == 0;
  }

 private:
  DType dtype_ = DType::kF32;
  Shape shape_ = {0};
  std::vector<std::byte> bytes_;
};

// Error allowed against ref/, which computes in f64 and rounds once: relative to the value and to
// `magnitude`, the largest term of its sums.
//   f32   2^-23 a rounding; some tens of them add up, with signs both ways
//   f16   half a unit in the last place of 11 bits is 2^-11 * 1/2; twice that where f32's own error
//         tips the rounding
//   bf16  the same of 8 bits
inline float tolerance(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 4e-6F;
    case DType::kF16:
      return 1.0F / 1024;
    case DType::kBF16:
      return 1.0F / 128;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  return 0.0F;
}

// The magnitude to give expect_near() for attention over values up to `largest`. In pairs of bf16,
// softmax weights are rounded, each within 2^-8 of itself: so far may their mean of values be off.
inline float attention_magnitude(DType q_dtype, DType kv_dtype, float largest) {
  const bool rounds_weights = (cpu::uses_bf16_dot() || cpu::uses_amx()) &&
                              q_dtype == DType::kBF16 &&
                              (kv_dtype == DType::kBF16 || is_quantized(kv_dtype));
  return largest * (1.0F + (rounds_weights ? 1.0F / 256 / tolerance(DType::kF32) : 0.0F));
}

inline void expect_near(const TestTensor& actual,
                        const TestTensor& expected,
                        float magnitude,
                        const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  const float relative = tolerance(actual.view().dtype);
  // A sum near zero is no better than f32's error on its terms.
  const float absolute = tolerance(DType::kF32) * magnitude;
  for (int64_t i = 0; i < actual.size(); ++i) {
    const float a = actual.at(i);
    const float e = expected.at(i);
    if (a == e) continue;  // also infinities
    ASSERT_LE(std::fabs(a - e), relative * std::fabs(e) + absolute)
        << what << ": element " << i << " is " << a << ", expected " << e;
  }
}

inline constexpr PackedFormat kPackedFormats[] = {
    PackedFormat::kPairs, PackedFormat::kInt8, PackedFormat::kInt4};

inline std::string name_of(PackedFormat format) {
  return format == PackedFormat::kPairs ? "pairs" : format == PackedFormat::kInt8 ? "int8" : "int4";
}

// A packed matrix, or a stack of them, of random elements, with memory of its own.
class PackedWeight {
 public:
  PackedWeight(
      PackedFormat format, int64_t num_matrices, int64_t rows, int64_t columns, uint64_t seed) {
    matrix_ = {.format = format, .rows = rows, .columns = columns, .num_matrices = num_matrices};
    memory_ = Buffer(MemoryKind::kHost, matrix_.size_bytes());
    matrix_.data = memory_.data();
    fill(matrix_, seed);
  }
  [[nodiscard]] const PackedMatrix& view() const { return matrix_; }

  // Writes all rows.
  static void fill(const PackedMatrix& matrix, uint64_t seed) {
    Rng rng(~seed);  // not what a test draws x from
    for (int64_t row = 0; row < matrix.rows * std::max<int64_t>(matrix.num_matrices, 1); ++row) {
      if (!is_quantized(matrix.format)) {
        fill_row(matrix, row, rng);
        continue;
      }
      for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
        fill_block(matrix, row, block, rng);
      }
    }
  }

 private:
  static void fill_row(const PackedMatrix& matrix, int64_t row, Rng& rng) {
    std::vector<BFloat16> values(static_cast<size_t>(matrix.columns));
    for (BFloat16& value : values) value = to_bf16(2.0F * rng.next_float() - 1.0F);
    matrix.set_row(row, values);
  }
  static void fill_block(const PackedMatrix& matrix, int64_t row, int64_t block, Rng& rng) {
    const uint64_t limit = matrix.format == PackedFormat::kInt4 ? 16 : 256;
    std::array<uint8_t, kBlockColumns> quants{};
    for (uint8_t& quant : quants) quant = static_cast<uint8_t>(rng.next_below(limit));
    const Float16 scale = to_f16((rng.next_float() + 0.5F) / 64.0F);
    const Float16 minimum = to_f16(rng.next_float() / -8.0F);
    matrix.set_block(row, block, quants, scale, minimum);
  }

  Buffer memory_;
  PackedMatrix matrix_;
};

}  // namespace lamina::kernels
