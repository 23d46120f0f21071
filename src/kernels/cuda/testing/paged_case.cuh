// A step of attention over a paged cache in device memory, with blocks in random order: what the
// attention kernels' tests and benchmarks run.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/cuda/attention/attention_launch.h"
#include "kernels/cuda/attention/attention_schedule.h"
#include "kernels/cuda/attention/codes.cuh"
#include "kernels/cuda/testing/device_memory.cuh"

namespace lamina::kernels::cuda::testing {

struct CaseShape {
  int32_t num_heads = 8;
  int32_t num_kv_heads = 1;
  int32_t head_dim = 128;  // kLatentKeyDim: values lie in the keys
  int32_t block_size = 16;
  std::vector<int32_t> num_queries = {};  // of each sequence
  std::vector<int32_t> context_len = {};
  int32_t window = 0;
  float soft_cap = 0.0F;
  bool has_alibi = false;
  bool has_sinks = false;
  bool out_is_f32 = false;

  [[nodiscard]] bool is_latent() const { return head_dim == kLatentKeyDim; }
  [[nodiscard]] int32_t value_dim() const { return is_latent() ? kLatentValueDim : head_dim; }
};

// Positions to blocks, and the bounds of the queries.
struct CaseTables {
  std::vector<int32_t> query_begin = {0};
  std::vector<int32_t> blocks;  // [B, max_blocks]
  int64_t max_blocks = 0;
  int32_t num_blocks = 0;

  CaseTables(const CaseShape& shape, uint64_t seed) {
    for (const int32_t n : shape.num_queries) query_begin.push_back(query_begin.back() + n);
    for (const int32_t len : shape.context_len) {
      const int32_t count = (len + shape.block_size - 1) / shape.block_size;
      max_blocks = std::max<int64_t>(max_blocks, count);
      num_blocks += count;
    }
    std::vector<int32_t> order(static_cast<size_t>(num_blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    blocks.assign(shape.context_len.size() * static_cast<size_t>(max_blocks), -1);
    size_t next = 0;
    for (size_t b = 0; b < shape.context_len.size(); ++b) {
      const int32_t count = (shape.context_len[b] + shape.block_size - 1) / shape.block_size;
      for (int32_t i = 0; i < count; ++i) {
        blocks[b * static_cast<size_t>(max_blocks) + static_cast<size_t>(i)] = order[next++];
      }
    }
  }

  [[nodiscard]] int32_t block(size_t b, int32_t position, const CaseShape& shape) const {
    return blocks[b * static_cast<size_t>(max_blocks) +
                  static_cast<size_t>(position / shape.block_size)];
  }
  // Of the cache's rows.
  [[nodiscard]] size_t row(size_t b, int32_t position, int32_t head, const CaseShape& shape) const {
    return static_cast<size_t>(
        (static_cast<int64_t>(block(b, position, shape)) * shape.num_kv_heads + head) *
            shape.block_size +
        position % shape.block_size);
  }
};

// Numbers in [-1, 1) as codes of a scale of 1 / kRange.
template <typename Code>
__global__ void fill_random_codes(Code* data, size_t size, uint64_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    data[i] = to_code<Code>(random_value(seed, i) * Code::kRange);
  }
}

// What the kernels write on the way, for one launch at a time.
struct Workspace {
  DeviceArray<float> outs;
  DeviceArray<float> lses;
  DeviceArray<int32_t> progress;

  Workspace() = default;
  Workspace(int32_t partials, int32_t num_kv_heads, int rows, int32_t value_dim)
      : outs(static_cast<size_t>(partials) * num_kv_heads * rows * value_dim),
        lses(static_cast<size_t>(partials) * num_kv_heads * rows),
        progress(2) {
    progress.fill_bytes(0);
  }
};

template <typename T>
void fill_random_cache(const DeviceArray<T>& cache, uint64_t seed) {
  if constexpr (is_code<T>) {
    fill_random_codes<<<1024, 256>>>(cache.data(), cache.size(), seed);
    LAMINA_REQUIRE_CUDA(cudaGetLastError());
  } else {
    fill_random(cache, seed);
  }
}

// Scales with which codes are numbers up to about 1, as those of appended rows are; none of others.
template <typename T>
DeviceArray<float> random_scales(size_t num_rows, uint64_t seed) {
  std::vector<float> scales;
  if constexpr (is_code<T>) {
    for (size_t i = 0; i < num_rows; ++i) {
      scales.push_back((1.0F + 0.5F * random_value(seed, i)) / T::kRange);
    }
  }
  return DeviceArray<float>(scales);
}

// What of a step the host prepares, on the device, and a workspace. Cached: Element or a code.
template <typename Element, typename Cached = Element>
class PagedCase {
 public:
  PagedCase(CaseShape shape, uint64_t seed)
      : shape_(std::move(shape)),
        tables_(shape_, seed),
        q_(static_cast<size_t>(tables_.query_begin.back()) * q_row()),
        k_cache_(cache_size()),
        v_cache_(shape_.is_latent() ? 0 : cache_size()),
        k_scales_(random_scales<Cached>(cache_rows(), seed + 5)),
        v_scales_(random_scales<Cached>(cache_rows(), seed + 6)),
        out_(num_rows() * shape_.value_dim() * (shape_.out_is_f32 ? 2 : 1)),
        lse_(num_rows()),
        block_tables_(tables_.blocks) {
    fill_random(q_, seed + 1);
    fill_random_cache(k_cache_, seed + 2);
    fill_random_cache(v_cache_, seed + 3);
    std::vector<float> per_head(static_cast<size_t>(shape_.num_heads));
    for (size_t h = 0; h < per_head.size(); ++h) per_head[h] = random_value(seed + 4, h);
    sinks_ = DeviceArray<float>(per_head);
    for (float& slope : per_head) slope = 0.01F * (slope + 1.5F);
    slopes_ = DeviceArray<float>(per_head);
    schedule();
  }

  // Enqueues what the step takes, with the workspace of `shared_with`, a case of the same shape, if
  // there is one.
  cudaError_t launch(cudaStream_t stream, const PagedCase* shared_with = nullptr) const {
    for (const bool is_wide : {false, true}) {
      const Width& width = is_wide ? wide_ : narrow_;
      if (width.num_items_on_host == 0) continue;
      AttentionParams params = base_params();
      params.items = {width.items.data(),
                      width.num_items_on_host,
                      width.num_items.data(),
                      width.merges.size() == 0 ? nullptr : width.merges.data(),
                      width.num_merges.data()};
      const Workspace& workspace = shared_with == nullptr ? width.workspace
                                   : is_wide              ? shared_with->wide_.workspace
                                                          : shared_with->narrow_.workspace;
      params.most_merges = static_cast<int32_t>(width.merges.size());
      params.merged_rows = std::min(is_wide ? kWideRows : kNarrowRows, width.most_rows);
      params.partial_outs = workspace.outs.data();
      params.partial_lses = workspace.lses.data();
      params.progress = workspace.progress.data();
      const cudaError_t error = launch_attention(params, kCached, shape_.head_dim, is_wide, stream);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }

  // Not numbers in every place of the cache that holds no token: whoever reads them shows it. Of
  // codes the scales.
  void poison_free_places() {
    if constexpr (is_code<Cached>) {
      poison_rows(k_scales_, 1);
      poison_rows(v_scales_, 1);
    } else {
      poison_rows(k_cache_, static_cast<size_t>(shape_.head_dim));
      if (!shape_.is_latent()) poison_rows(v_cache_, static_cast<size_t>(shape_.head_dim));
    }
  }
  // Takes every `step`-th block away from the tables, as if another worker held it.
  void drop_blocks(size_t step) {
    for (size_t i = 1; i < tables_.blocks.size(); i += step) tables_.blocks[i] = -1;
    block_tables_ = DeviceArray<int32_t>(tables_.blocks);
  }

  [[nodiscard]] const CaseShape& shape() const { return shape_; }
  [[nodiscard]] const CaseTables& tables() const { return tables_; }
  [[nodiscard]] const DeviceArray<Element>& q() const { return q_; }
  [[nodiscard]] const DeviceArray<Cached>& k_cache() const { return k_cache_; }
  [[nodiscard]] const DeviceArray<Cached>& v_cache() const { return v_cache_; }
  [[nodiscard]] const DeviceArray<float>& k_scales() const { return k_scales_; }
  [[nodiscard]] const DeviceArray<float>& v_scales() const { return v_scales_; }
  [[nodiscard]] const DeviceArray<Element>& out() const { return out_; }
  [[nodiscard]] const DeviceArray<float>& lse() const { return lse_; }
  [[nodiscard]] const DeviceArray<float>& slopes() const { return slopes_; }
  [[nodiscard]] const DeviceArray<float>& sinks() const { return sinks_; }
  static constexpr float kScale = 0.25F;

 private:
  static constexpr CacheElement kCached = std::is_same_v<Cached, E4M3>     ? CacheElement::kE4M3
                                          : std::is_same_v<Cached, I8>     ? CacheElement::kI8
                                          : std::is_same_v<Cached, __half> ? CacheElement::kF16
                                                                           : CacheElement::kBF16;
  struct Width {
    DeviceArray<AttentionItem> items;
    DeviceArray<int32_t> num_items;
    int32_t num_items_on_host = 0;
    DeviceArray<AttentionItem> merges;
    DeviceArray<int32_t> num_merges;
    int32_t most_rows = 0;
    Workspace workspace;
  };

  [[nodiscard]] size_t num_rows() const {
    return static_cast<size_t>(tables_.query_begin.back()) * static_cast<size_t>(shape_.num_heads);
  }
  [[nodiscard]] size_t q_row() const {
    return static_cast<size_t>(shape_.num_heads) * static_cast<size_t>(shape_.head_dim);
  }
  [[nodiscard]] size_t cache_rows() const {
    return static_cast<size_t>(tables_.num_blocks) * static_cast<size_t>(shape_.num_kv_heads) *
           static_cast<size_t>(shape_.block_size);
  }
  [[nodiscard]] size_t cache_size() const {
    return cache_rows() * static_cast<size_t>(shape_.head_dim);
  }

  template <typename T>
  void poison_rows(DeviceArray<T>& cache, size_t row) {
    std::vector<T> elements = cache.to_host();
    for (size_t b = 0; b < shape_.context_len.size(); ++b) {
      const int32_t end = static_cast<int32_t>(tables_.max_blocks) * shape_.block_size;
      for (int32_t position = shape_.context_len[b]; position < end; ++position) {
        if (tables_.block(b, position, shape_) < 0) break;
        for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
          const size_t begin = row * tables_.row(b, position, head, shape_);
          std::fill_n(elements.begin() + static_cast<ptrdiff_t>(begin), row, T(NAN));
        }
      }
    }
    cache = DeviceArray<T>(elements);
  }

  void schedule() {
    AttentionSchedule schedule;
    make_attention_schedule({.query_begin = tables_.query_begin,
                             .context_len = shape_.context_len,
                             .group = shape_.num_heads / shape_.num_kv_heads,
                             .window = shape_.window,
                             .latent = shape_.is_latent()},
                            schedule);
    fill(narrow_, schedule.narrow, kNarrowRows);
    fill(wide_, schedule.wide, kWideRows);
  }

  void fill(Width& width, const AttentionSchedule::Width& cut, int rows) {
    width.items = DeviceArray<AttentionItem>(cut.items);
    width.num_items_on_host = static_cast<int32_t>(cut.items.size());
    width.num_items = DeviceArray<int32_t>(std::vector<int32_t>{width.num_items_on_host});
    width.merges = DeviceArray<AttentionItem>(cut.merges);
    width.num_merges =
        DeviceArray<int32_t>(std::vector<int32_t>{static_cast<int32_t>(cut.merges.size())});
    for (const AttentionItem& rows : cut.merges) {
      width.most_rows = std::max(width.most_rows, rows.num_rows);
    }
    width.workspace = Workspace(cut.num_partials, shape_.num_kv_heads, rows, shape_.value_dim());
  }

  [[nodiscard]] AttentionParams base_params() const {
    AttentionParams params{};
    params.q = q_.data();
    params.q_stride = static_cast<int64_t>(shape_.num_heads) * shape_.head_dim;
    params.k_cache = k_cache_.data();
    params.v_cache = v_cache_.data();
    params.k_scales = k_scales_.data();
    params.v_scales = v_scales_.data();
    params.out = out_.data();
    params.lse = lse_.data();
    params.block_tables = block_tables_.data();
    params.max_blocks = tables_.max_blocks;
    params.num_heads = shape_.num_heads;
    params.num_kv_heads = shape_.num_kv_heads;
    params.block_size = shape_.block_size;
    params.scale = kScale;
    params.soft_cap = shape_.soft_cap;
    params.window = shape_.window;
    params.alibi_slopes = shape_.has_alibi ? slopes_.data() : nullptr;
    params.sinks = shape_.has_sinks ? sinks_.data() : nullptr;
    params.out_is_f32 = shape_.out_is_f32;
    return params;
  }

  CaseShape shape_;
  CaseTables tables_;
  DeviceArray<Element> q_;
  DeviceArray<Cached> k_cache_;
  DeviceArray<Cached> v_cache_;
  DeviceArray<float> k_scales_;
  DeviceArray<float> v_scales_;
  DeviceArray<Element> out_;
  DeviceArray<float> lse_;
  DeviceArray<int32_t> block_tables_;
  DeviceArray<float> sinks_;
  DeviceArray<float> slopes_;
  Width narrow_;
  Width wide_;
};

}  // namespace lamina::kernels::cuda::testing
