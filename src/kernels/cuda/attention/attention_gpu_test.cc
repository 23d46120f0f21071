// Append and attention on CUDA against ref/, through the operators, by the fast kernels and the
// general one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "base/checked_math.h"
#include "kernels/attention.h"
#include "kernels/cuda/testing/device_tensor.h"
#include "kernels/ref/attention.h"

namespace lamina::kernels {
namespace {

struct Form {
  DType dtype = DType::kBF16;       // of queries, and of the cache
  std::optional<DType> codes = {};  // unless the cache is of these
  int64_t num_heads = 8;
  int64_t num_kv_heads = 2;
  int64_t key_dim = 64;
  int64_t value_dim = 64;
  bool latent = false;
  int64_t block_size = 16;
  std::optional<int32_t> window = std::nullopt;
  std::optional<float> soft_cap = std::nullopt;
  bool alibi = false;
  bool sinks = false;
  bool some_blocks_elsewhere = false;
  DType out_dtype = DType::kF32;

  [[nodiscard]] DType cache_dtype() const { return codes.value_or(dtype); }
  [[nodiscard]] std::string name() const {
    return fmt::format("{} over {} heads {}/{} of {}/{}{} block {} window {} cap {}{}{}{}",
                       dtype_name(dtype),
                       dtype_name(cache_dtype()),
                       num_heads,
                       num_kv_heads,
                       key_dim,
                       value_dim,
                       latent ? " latent" : "",
                       block_size,
                       window.value_or(0),
                       soft_cap.value_or(0.0F),
                       alibi ? " alibi" : "",
                       sinks ? " sinks" : "",
                       some_blocks_elsewhere ? " partial" : "");
  }
};

struct Sequence {
  int32_t context = 0;
  int32_t num_queries = 0;
};
const std::vector<Sequence> kSequences = {{1, 1}, {17, 17}, {700, 1}, {130, 3}, {64, 40}, {0, 0}};

// A step over whole sequences, whose blocks are shuffled: everything of it in host memory.
class HostStep {
 public:
  HostStep(const Form& form, uint64_t seed) : form_(form), rng_(seed) {
    query_begin_ = {0};
    whole_begin_ = {0};
    int64_t num_blocks = 1;
    for (const Sequence& sequence : kSequences) {
      query_begin_.push_back(query_begin_.back() + sequence.num_queries);
      whole_begin_.push_back(whole_begin_.back() + sequence.context);
      context_len_.push_back(sequence.context);
      const int64_t count = ceil_div(int64_t{sequence.context}, form.block_size);
      num_blocks += count;
      max_blocks_ = std::max(max_blocks_, count);
    }
    fill_tables(num_blocks);
    const Shape cache = {num_blocks, form.num_kv_heads, form.block_size, form.key_dim};
    k_cache = poisoned(form.cache_dtype(), cache);
    if (form.codes) k_scales = poisoned(DType::kF32, {cache[0], cache[1], cache[2]});
    k = random({whole_begin_.back(), form.num_kv_heads, form.key_dim});
    if (!form.latent) {
      v_cache = poisoned(form.cache_dtype(), cache.with(3, form.value_dim));
      if (form.codes) v_scales = poisoned(DType::kF32, {cache[0], cache[1], cache[2]});
      v = random({whole_begin_.back(), form.num_kv_heads, form.value_dim});
    }
    q = random({query_begin_.back(), form.num_heads, form.key_dim});
    out = poisoned(form.out_dtype, q.view().shape.with(2, form.value_dim));
    lse = poisoned(DType::kF32, {query_begin_.back(), form.num_heads});
    if (form.alibi) slopes = TestTensor::random(DType::kF32, {form.num_heads}, rng_, 0.05F);
    if (form.sinks) sinks = TestTensor::random(DType::kF32, {form.num_heads}, rng_, 2.0F);
  }

  // All tokens of the sequences as one step's: what append takes.
  [[nodiscard]] RaggedBatch whole() const {
    return {whole_begin_, context_len_, tables_, max_blocks_};
  }
  [[nodiscard]] RaggedBatch batch() const {
    return {query_begin_, context_len_, queried_tables_, max_blocks_};
  }
  [[nodiscard]] std::vector<int64_t> slots() const { return slots_of(whole(), form_.block_size); }
  [[nodiscard]] RaggedAttentionArgs args() const {
    return {.q = q.view(),
            .k_cache = k_cache.view(),
            .v_cache = v_cache.view(),
            .out = out.view(),
            .lse = lse.view(),
            .batch = batch(),
            .scale = 0.2F,
            .window = form_.window,
            .soft_cap = form_.soft_cap,
            .alibi_slopes = span_of(slopes),
            .sinks = span_of(sinks),
            .k_scales = k_scales.view(),
            .v_scales = v_scales.view()};
  }
  static std::span<const float> span_of(const TestTensor& tensor) {
    if (tensor.view().empty()) return {};
    return {tensor.view().as<float>(), static_cast<size_t>(tensor.size())};
  }

  TestTensor q, k, v, k_cache, v_cache, k_scales, v_scales, out, lse, slopes, sinks;

 private:
  TestTensor random(const Shape& shape) {
    return TestTensor::random(form_.dtype, shape, rng_, 1.0F);
  }
  static TestTensor poisoned(DType dtype, const Shape& shape) {
    TestTensor tensor(dtype, shape);
    tensor.poison();
    return tensor;
  }
  void fill_tables(int64_t num_blocks) {
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[rng_.next_below(i)]);
    tables_.assign(kSequences.size() * static_cast<size_t>(max_blocks_), kNoBlock);
    for (size_t b = 0; b < kSequences.size(); ++b) {
      const int64_t count = ceil_div(int64_t{kSequences[b].context}, form_.block_size);
      for (int64_t i = 0; i < count; ++i) {
        tables_[b * static_cast<size_t>(max_blocks_) + static_cast<size_t>(i)] = ids.back();
        ids.pop_back();
      }
    }
    queried_tables_ = tables_;
    if (!form_.some_blocks_elsewhere) return;
    for (size_t i = 0; i < queried_tables_.size(); i += 3) queried_tables_[i] = kNoBlock;
  }

  Form form_;
  Rng rng_;
  std::vector<int32_t> query_begin_;
  std::vector<int32_t> whole_begin_;
  std::vector<int32_t> context_len_;
  std::vector<int32_t> tables_;
  std::vector<int32_t> queried_tables_;
  int64_t max_blocks_ = 0;
};

// What rounding softmax weights to the dtype may change, in units of expect_near().
float magnitude(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 1.0F + 1.0F / 2048 / tolerance(DType::kF32);
    case DType::kBF16:
      return 1.0F + 1.0F / 256 / tolerance(DType::kF32);
    default:
      return 4.0F;
  }
}

class CudaAttention : public CudaTest {
 protected:
  void expect_agrees(const Form& form) {
    SCOPED_TRACE(form.name());
    HostStep host(form, 7);
    // The device first: it begins with the cache that the host has yet to fill.
    const DeviceTensor q(host.q);
    const DeviceTensor k(host.k);
    const DeviceTensor v(host.v);
    const DeviceTensor k_cache(host.k_cache);
    const DeviceTensor v_cache(host.v_cache);
    const DeviceTensor k_scales(host.k_scales);
    const DeviceTensor v_scales(host.v_scales);
    const DeviceTensor out(host.out);
    const DeviceTensor lse(host.lse);
    const DeviceTensor slopes(host.slopes);
    const DeviceTensor sinks(host.sinks);
    StepTables tables(limits(form, host), stream());
    const KvOrder order = preferred_order({.dtype = form.cache_dtype(),
                                           .q_dtype = form.dtype,
                                           .block_size = form.block_size,
                                           .key_dim = form.key_dim,
                                           .value_dim = form.latent ? 0 : form.value_dim,
                                           .device = kDevice});
    const std::vector<int64_t> slots = host.slots();
    ASSERT_TRUE(tables.update(host.whole(), slots, stream()).ok());
    const AppendKvArgs append = {.k = k.view(),
                                 .v = v.view(),
                                 .k_cache = k_cache.view(),
                                 .v_cache = v_cache.view(),
                                 .slot_mapping = slots,
                                 .order = order,
                                 .k_scales = k_scales.view(),
                                 .v_scales = v_scales.view(),
                                 .tables = &tables};
    ASSERT_EQ(append_kv(append, stream()).to_string(), "OK");
    ASSERT_TRUE(tables.update(host.batch(), {}, stream()).ok());
    RaggedAttentionArgs args = host.args();
    args.q = q.view();
    args.k_cache = k_cache.view();
    args.v_cache = v_cache.view();
    args.out = out.view();
    args.lse = lse.view();
    args.batch.tables = &tables;
    args.alibi_slopes = device_span(slopes, host.slopes);
    args.sinks = device_span(sinks, host.sinks);
    args.order = order;
    args.k_scales = k_scales.view();
    args.v_scales = v_scales.view();
    ASSERT_EQ(ragged_attention(args, stream()).to_string(), "OK");

    ref::append_kv({.k = host.k.view(),
                    .v = host.v.view(),
                    .k_cache = host.k_cache.view(),
                    .v_cache = host.v_cache.view(),
                    .slot_mapping = slots,
                    .k_scales = host.k_scales.view(),
                    .v_scales = host.v_scales.view()});
    ref::ragged_attention(host.args());
    expect_near(out.to_host(stream()), host.out, magnitude(form.dtype), "out");
    expect_near(lse.to_host(stream()), host.lse, 200.0F, "lse");
  }

  static StepTablesLimits limits(const Form& form, const HostStep& host) {
    return {.max_sequences = static_cast<int32_t>(kSequences.size()),
            .max_tokens = host.whole().query_begin.back(),
            .max_blocks = static_cast<int32_t>(host.whole().max_blocks),
            .num_heads = static_cast<int32_t>(form.num_heads),
            .num_kv_heads = static_cast<int32_t>(form.num_kv_heads),
            .value_dim = static_cast<int32_t>(form.value_dim),
            .latent = form.latent,
            .num_blocks = static_cast<int32_t>(host.k_cache.view().shape[0]),
            .block_size = static_cast<int32_t>(form.block_size),
            .windows = {0, form.window.value_or(9)}};
  }
  static std::span<const float> device_span(const DeviceTensor& device, const TestTensor& host) {
    if (host.view().empty()) return {};
    return {device.view().as<float>(), static_cast<size_t>(host.size())};
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
      Form form = {.dtype = dtype, .block_size = block_size};
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
    Form form = {.dtype = dtype, .num_kv_heads = 1, .key_dim = 24, .value_dim = 16, .latent = true};
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
      Form form = {.codes = codes, .block_size = block_size, .out_dtype = DType::kBF16};
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
        const Form form = {.dtype = dtype, .codes = codes, .key_dim = 24, .value_dim = 40};
        SCOPED_TRACE(form.name());
        HostStep host(form, 3);
        for (int64_t i = 0; i < host.k.size(); ++i) host.k.set(i, host.k.at(i) * largest);
        host.k.set(1, kInfinity);
        host.v.set(50, std::numeric_limits<float>::quiet_NaN());
        const DeviceTensor k(host.k);
        const DeviceTensor v(host.v);
        const DeviceTensor k_cache(host.k_cache);
        const DeviceTensor v_cache(host.v_cache);
        const DeviceTensor k_scales(host.k_scales);
        const DeviceTensor v_scales(host.v_scales);
        StepTables tables(limits(form, host), stream());
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
  StepTables tables({.max_sequences = 1,
                     .max_tokens = 1,
                     .max_blocks = 1,
                     .num_heads = 2,
                     .num_kv_heads = 2,
                     .value_dim = 64,
                     .num_blocks = 1,
                     .block_size = 16},
                    stream());
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

}  // namespace
}  // namespace lamina::kernels
