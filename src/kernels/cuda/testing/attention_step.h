// A step of attention for the tests of the operators on CUDA: in host memory, with what ref/ makes
// of it, and in GPU memory.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "base/checked_math.h"
#include "kernels/attention.h"
#include "kernels/cuda/testing/device_tensor.h"
#include "kernels/ref/attention.h"

namespace lamina::kernels {

struct AttentionForm {
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

struct SequenceLengths {
  int32_t context = 0;
  int32_t num_queries = 0;
};

// A step over whole sequences, whose blocks are shuffled: everything of it in host memory.
class HostStep {
 public:
  HostStep(const AttentionForm& form, const std::vector<SequenceLengths>& sequences)
      : form_(form), rng_(7) {
    query_begin_ = {0};
    whole_begin_ = {0};
    int64_t num_blocks = 1;
    for (const SequenceLengths& sequence : sequences) {
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
  // in_phases: see StepTablesLimits.
  [[nodiscard]] StepTablesLimits limits(bool in_phases = false) const {
    return {.max_sequences = static_cast<int32_t>(context_len_.size()),
            .max_tokens = whole_begin_.back(),
            .max_blocks = static_cast<int32_t>(max_blocks_),
            .num_heads = static_cast<int32_t>(form_.num_heads),
            .num_kv_heads = static_cast<int32_t>(form_.num_kv_heads),
            .value_dim = static_cast<int32_t>(form_.value_dim),
            .latent = form_.latent,
            .num_blocks = static_cast<int32_t>(k_cache.view().shape[0]),
            .block_size = static_cast<int32_t>(form_.block_size),
            .windows = {0, form_.window.value_or(9)},
            .in_phases = in_phases};
  }
  [[nodiscard]] const AttentionForm& form() const { return form_; }
  // k or v, but those of this step's tokens are no numbers.
  [[nodiscard]] TestTensor without_new_rows(const TestTensor& rows) const {
    TestTensor old = rows;
    if (old.view().empty()) return old;
    for (size_t b = 0; b < context_len_.size(); ++b) {
      const int64_t width = rows.view().row_elements();
      const int32_t num_queries = query_begin_[b + 1] - query_begin_[b];
      const int64_t first = whole_begin_[b + 1] - num_queries;
      for (int64_t i = first * width; i < whole_begin_[b + 1] * width; ++i) old.set(i, NAN);
    }
    return old;
  }
  // What the reference makes of it all, in `out` and `lse`.
  void run_reference() const {
    ref::append_kv({.k = k.view(),
                    .v = v.view(),
                    .k_cache = k_cache.view(),
                    .v_cache = v_cache.view(),
                    .slot_mapping = slots(),
                    .k_scales = k_scales.view(),
                    .v_scales = v_scales.view()});
    ref::ragged_attention(args());
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
    tables_.assign(context_len_.size() * static_cast<size_t>(max_blocks_), kNoBlock);
    for (size_t b = 0; b < context_len_.size(); ++b) {
      const int64_t count = ceil_div(int64_t{context_len_[b]}, form_.block_size);
      for (int64_t i = 0; i < count; ++i) {
        tables_[b * static_cast<size_t>(max_blocks_) + static_cast<size_t>(i)] = ids.back();
        ids.pop_back();
      }
    }
    queried_tables_ = tables_;
    if (!form_.some_blocks_elsewhere) return;
    for (size_t i = 0; i < queried_tables_.size(); i += 3) queried_tables_[i] = kNoBlock;
  }

  AttentionForm form_;
  Rng rng_;
  std::vector<int32_t> query_begin_;
  std::vector<int32_t> whole_begin_;
  std::vector<int32_t> context_len_;
  std::vector<int32_t> tables_;
  std::vector<int32_t> queried_tables_;
  int64_t max_blocks_ = 0;
};

// What rounding softmax weights to the dtype may change, in units of expect_near().
inline float magnitude(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 1.0F + 1.0F / 2048 / tolerance(DType::kF32);
    case DType::kBF16:
      return 1.0F + 1.0F / 256 / tolerance(DType::kF32);
    default:
      return 4.0F;
  }
}

// The same in GPU memory, with the cache as it was on the host then: before the reference ran.
class DeviceStep {
 public:
  DeviceStep(const HostStep& host, StreamView stream)
      : q(host.q),
        k(host.k),
        v(host.v),
        k_cache(host.k_cache),
        v_cache(host.v_cache),
        k_scales(host.k_scales),
        v_scales(host.v_scales),
        out(host.out),
        lse(host.lse),
        slopes(host.slopes),
        sinks(host.sinks),
        host_(host),
        stream_(stream),
        order_(preferred_order({.dtype = host.form().cache_dtype(),
                                .q_dtype = host.form().dtype,
                                .block_size = host.form().block_size,
                                .key_dim = host.form().key_dim,
                                .value_dim = host.form().latent ? 0 : host.form().value_dim,
                                .device = stream.device()})) {}

  // All tokens of the sequences, with the keys and values given. `tables` are the append's then.
  Status append(StepTables& tables, const DeviceTensor& keys, const DeviceTensor& values) const {
    const std::vector<int64_t> slots = host_.slots();
    LAMINA_RETURN_IF_ERROR(tables.update(host_.whole(), slots, stream_));
    return append_kv({.k = keys.view(),
                      .v = values.view(),
                      .k_cache = k_cache.view(),
                      .v_cache = v_cache.view(),
                      .slot_mapping = slots,
                      .order = order_,
                      .k_scales = k_scales.view(),
                      .v_scales = v_scales.view(),
                      .tables = &tables},
                     stream_);
  }
  [[nodiscard]] RaggedAttentionArgs args(const StepTables& tables) const {
    RaggedAttentionArgs args = host_.args();
    args.q = q.view();
    args.k_cache = k_cache.view();
    args.v_cache = v_cache.view();
    args.out = out.view();
    args.lse = lse.view();
    args.batch.tables = &tables;
    args.alibi_slopes = span_of(slopes, host_.slopes);
    args.sinks = span_of(sinks, host_.sinks);
    args.order = order_;
    args.k_scales = k_scales.view();
    args.v_scales = v_scales.view();
    return args;
  }

  DeviceTensor q, k, v, k_cache, v_cache, k_scales, v_scales, out, lse, slopes, sinks;

 private:
  static std::span<const float> span_of(const DeviceTensor& device, const TestTensor& host) {
    if (host.view().empty()) return {};
    return {device.view().as<float>(), static_cast<size_t>(host.size())};
  }

  const HostStep& host_;
  StreamView stream_;
  KvOrder order_;
};

}  // namespace lamina::kernels
