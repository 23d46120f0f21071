// Append and attention on CUDA against ref/, through the operators, by the fast kernels and the
// general one.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/attention.h"
#include "kernels/cuda/testing/attention_step.h"
#include "kernels/ref/attention.h"

namespace lamina::kernels {
namespace {

const std::vector<SequenceLengths> kSequences = {
    {1, 1}, {17, 17}, {700, 1}, {130, 3}, {64, 40}, {0, 0}};

class CudaAttention : public CudaTest {
 protected:
  void expect_agrees(const AttentionForm& form) {
    SCOPED_TRACE(form.name());
    const HostStep host(form, kSequences);
    const DeviceStep device(host, stream());
    StepTables tables(host.limits(), stream());
    ASSERT_EQ(device.append(tables, device.k, device.v).to_string(), "OK");
    ASSERT_TRUE(tables.update(host.batch(), {}, stream()).ok());
    ASSERT_EQ(ragged_attention(device.args(tables), stream()).to_string(), "OK");
    host.run_reference();
    expect_near(device.out.to_host(stream()), host.out, magnitude(form.dtype), "out");
    expect_near(device.lse.to_host(stream()), host.lse, 200.0F, "lse");
  }
};

TEST_F(CudaAttention, OfEverySizeOfHeads) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const int64_t dim : {8, 16, 64, 80, 96, 128, 192, 256}) {
      expect_agrees({.dtype = dtype, .key_dim = dim, .value_dim = dim});
    }
  }
}

TEST_F(CudaAttention, OfEverySizeOfGroups) {
  for (const int64_t group : {1, 2, 5, 16, 71}) {
    expect_agrees({.num_heads = group, .num_kv_heads = 1});
    expect_agrees({.num_heads = 2 * group, .num_kv_heads = 2, .key_dim = 128, .value_dim = 128});
  }
}

TEST_F(CudaAttention, OfEveryForm) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int64_t block_size : {16, 64, 128}) {
      AttentionForm form = {.dtype = dtype, .block_size = block_size};
      expect_agrees(form);
      form.out_dtype = dtype;
      expect_agrees(form);
      form.window = 100;
      expect_agrees(form);
      form.soft_cap = 3.0F;
      expect_agrees(form);
      form.alibi = true;
      expect_agrees(form);
      form.sinks = true;
      expect_agrees(form);
    }
  }
}

TEST_F(CudaAttention, OverBlocksThatAreHere) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    expect_agrees({.dtype = dtype, .some_blocks_elsewhere = true});
    expect_agrees({.dtype = dtype, .block_size = 64, .some_blocks_elsewhere = true});
  }
}

TEST_F(CudaAttention, OfValuesThatLieInTheirKeys) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    AttentionForm form = {
        .dtype = dtype, .num_kv_heads = 1, .key_dim = 24, .value_dim = 16, .latent = true};
    expect_agrees(form);
    form.key_dim = 576;
    form.value_dim = 512;
    for (const int64_t num_heads : {1, 16, 40, 128}) {
      form.num_heads = num_heads;
      form.block_size = 16;
      expect_agrees(form);
      form.block_size = 64;
      form.some_blocks_elsewhere = true;
      form.out_dtype = dtype;
      expect_agrees(form);
      form.some_blocks_elsewhere = false;
      form.out_dtype = DType::kF32;
    }
  }
}

TEST_F(CudaAttention, OverCodes) {
  for (const DType codes : kCodeDTypes) {
    for (const int64_t dim : {16, 64, 80, 96, 128, 192, 256}) {
      expect_agrees({.codes = codes, .key_dim = dim, .value_dim = dim});
    }
    for (const int64_t group : {1, 2, 5, 16, 71}) {
      expect_agrees({.codes = codes, .num_heads = 2 * group, .key_dim = 128, .value_dim = 128});
    }
    for (const int64_t block_size : {16, 64, 128}) {
      AttentionForm form = {.codes = codes, .block_size = block_size, .out_dtype = DType::kBF16};
      expect_agrees(form);
      form.some_blocks_elsewhere = true;
      expect_agrees(form);
      form.window = 100;
      expect_agrees(form);
      form.soft_cap = 3.0F;
      form.alibi = true;
      form.sinks = true;
      expect_agrees(form);
    }
  }
}

// By the general kernel.
TEST_F(CudaAttention, OverCodesOfOtherQueries) {
  for (const DType codes : kCodeDTypes) {
    for (const DType dtype : {DType::kF32, DType::kF16}) {
      expect_agrees({.dtype = dtype, .codes = codes});
      expect_agrees({.dtype = dtype,
                     .codes = codes,
                     .num_heads = 16,
                     .num_kv_heads = 1,
                     .key_dim = 576,
                     .value_dim = 512,
                     .latent = true});
    }
    expect_agrees({.codes = codes, .key_dim = 128, .value_dim = 64});
  }
}

// Bit for bit what the reference makes of the same rows, also of those that are no numbers.
TEST_F(CudaAttention, AppendsCodesAsTheReferenceDoes) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const DType codes : kCodeDTypes) {
    for (const DType dtype : kFloatDTypes) {
      for (const float largest : {1.0F, 1e-30F, 3e4F}) {
        const AttentionForm form = {.dtype = dtype, .codes = codes, .key_dim = 24, .value_dim = 40};
        SCOPED_TRACE(form.name());
        HostStep host(form, kSequences);
        for (int64_t i = 0; i < host.k.size(); ++i) host.k.set(i, host.k.at(i) * largest);
        host.k.set(1, kInfinity);
        host.v.set(50, std::numeric_limits<float>::quiet_NaN());
        const DeviceTensor k(host.k);
        const DeviceTensor v(host.v);
        const DeviceTensor k_cache(host.k_cache);
        const DeviceTensor v_cache(host.v_cache);
        const DeviceTensor k_scales(host.k_scales);
        const DeviceTensor v_scales(host.v_scales);
        StepTables tables(host.limits(), stream());
        const std::vector<int64_t> slots = host.slots();
        ASSERT_TRUE(tables.update(host.whole(), slots, stream()).ok());
        AppendKvArgs args = {.k = k.view(),
                             .v = v.view(),
                             .k_cache = k_cache.view(),
                             .v_cache = v_cache.view(),
                             .slot_mapping = slots,
                             .k_scales = k_scales.view(),
                             .v_scales = v_scales.view(),
                             .tables = &tables};
        ASSERT_EQ(append_kv(args, stream()).to_string(), "OK");
        args = {.k = host.k.view(),
                .v = host.v.view(),
                .k_cache = host.k_cache.view(),
                .v_cache = host.v_cache.view(),
                .slot_mapping = slots,
                .k_scales = host.k_scales.view(),
                .v_scales = host.v_scales.view()};
        ref::append_kv(args);
        EXPECT_EQ(k_cache.to_host(stream()), host.k_cache);
        EXPECT_EQ(v_cache.to_host(stream()), host.v_cache);
        EXPECT_EQ(k_scales.to_host(stream()), host.k_scales);
        EXPECT_EQ(v_scales.to_host(stream()), host.v_scales);
      }
    }
  }
}

// Over one block.
StepTablesLimits of_one_token(int32_t max_blocks) {
  return {.max_sequences = 1,
          .max_tokens = 1,
          .max_blocks = max_blocks,
          .num_heads = 2,
          .num_kv_heads = 2,
          .value_dim = 64,
          .num_blocks = 1,
          .block_size = 16};
}

TEST_F(CudaAttention, RefusesWhatItWasNotPreparedFor) {
  Rng rng(1);
  const DeviceTensor q(TestTensor::random(DType::kBF16, {1, 2, 64}, rng));
  const DeviceTensor cache(TestTensor::random(DType::kBF16, {1, 2, 16, 64}, rng));
  RaggedAttentionArgs args = {.q = q.view(),
                              .k_cache = cache.view(),
                              .v_cache = cache.view(),
                              .out = q.view(),
                              .lse = {},
                              .batch = {}};
  EXPECT_EQ(ragged_attention(args, stream()).code(), StatusCode::kInvalidArgument);
  StepTables tables(of_one_token(1), stream());
  const std::vector<int32_t> begin = {0, 1};
  const std::vector<int32_t> context = {5};
  const std::vector<int32_t> good = {0};
  const std::vector<int32_t> bad = {1};
  EXPECT_TRUE(tables.update({begin, context, good, 1}, {}, stream()).ok());
  EXPECT_EQ(tables.update({begin, context, bad, 1}, {}, stream()).code(),
            StatusCode::kInvalidArgument);
  const std::vector<int64_t> far_slot = {16};
  EXPECT_EQ(tables.update({begin, context, good, 1}, far_slot, stream()).code(),
            StatusCode::kInvalidArgument);
}

// What did not change is neither read nor brought.
TEST_F(CudaAttention, RefusesBadChangesOfTables) {
  StepTables tables(of_one_token(kTableRowUnit), stream());
  const std::vector<int32_t> begin = {0, 1};
  const std::vector<int32_t> context = {5};
  const std::vector<int32_t> entries = {0, 1, 1, 1};
  const auto update = [&](TableRange changed) {
    const RaggedBatch batch = {begin, context, entries, kTableRowUnit};
    return tables.update(batch, std::span(&changed, 1), {}, stream()).code();
  };
  EXPECT_EQ(update({0, 1}), StatusCode::kOk);
  EXPECT_EQ(update({0, 2}), StatusCode::kInvalidArgument);
  EXPECT_EQ(update({4, 5}), StatusCode::kInvalidArgument);
  EXPECT_EQ(update({1, 0}), StatusCode::kInvalidArgument);
  const std::vector<int32_t> entry = {0};
  const RaggedBatch narrower = {begin, context, entry, 1};
  EXPECT_EQ(tables.update(narrower, {}, {}, stream()).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lamina::kernels
