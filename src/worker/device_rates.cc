#include "worker/device_rates.h"

#include <algorithm>
#include <future>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "device/buffer.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kv/kv_cache.h"

namespace lamina {
namespace {

// Seconds of each of several runs of body(): at least one, no more once they took so long together
// (builds with sanitizers are slow).
constexpr double kEnoughSeconds = 0.05;
template <typename Body>
std::vector<double> seconds_of_runs(size_t num_runs, const Body& body) {
  std::vector<double> seconds;
  double total = 0;
  while (seconds.empty() || (seconds.size() < num_runs && total < kEnoughSeconds)) {
    const TimePoint begin = steady_clock().now();
    const Status status = body();
    LAMINA_CHECK(status.ok(), status.message());
    seconds.push_back(std::chrono::duration<double>(steady_clock().now() - begin).count());
    total += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

// On a thread of its own, which is kept where those that serve are.
template <typename Measure>
auto on_adopted_thread(StreamView stream, const Measure& measure) {
  return std::async(std::launch::async,
                    [&] {
                      stream.adopt_this_thread();
                      return measure(stream);
                    })
      .get();
}

// A layer with a query head for each KV head, so that reading is all that takes time.
constexpr int32_t kNumKvHeads = 8;
constexpr int32_t kNumHeads = kNumKvHeads;
constexpr int32_t kHeadDim = 128;
constexpr int32_t kNumSequences = 16;
constexpr int32_t kBlocksPerSequence = 16;
constexpr KvLayout kLayout{.num_layers = 1,
                           .num_kv_heads = kNumKvHeads,
                           .head_dim = kHeadDim,
                           .value_dim = kHeadDim,
                           .block_size = 64,
                           .dtype = DType::kBF16};

double kv_bandwidth(StreamView stream) {
  const KvCache cache(kLayout, kNumSequences * kBlocksPerSequence, MemoryKind::kHost);
  const Shape shape = {kNumSequences, kNumHeads, kHeadDim};
  constexpr auto kDType = kLayout.dtype;
  const auto bytes =
      static_cast<size_t>(kNumSequences * kNumHeads * kHeadDim) * dtype_bytes(kDType);
  const Buffer query(MemoryKind::kHost, bytes);
  const Buffer output(MemoryKind::kHost, bytes);
  std::vector<int32_t> query_begin(kNumSequences + 1);
  std::iota(query_begin.begin(), query_begin.end(), 0);
  const std::vector<int32_t> context(kNumSequences, kBlocksPerSequence * kLayout.block_size);
  std::vector<int32_t> tables(kNumSequences * kBlocksPerSequence);
  std::iota(tables.begin(), tables.end(), 0);
  std::fill(query.bytes().begin(), query.bytes().end(), std::byte{0});
  for (const TensorView& view : {cache.keys(0), cache.values(0)}) {
    std::fill_n(view.data, view.size_bytes(), std::byte{0});
  }
  const kernels::RaggedAttentionArgs args{
      .q = {query.data(), kDType, shape},
      .k_cache = cache.keys(0),
      .v_cache = cache.values(0),
      .out = {output.data(), kDType, shape},
      .lse = {},
      .batch = {query_begin, context, tables, kBlocksPerSequence},
      .scale = 1.0F,
      .window = {},
      .soft_cap = {},
      .alibi_slopes = {},
      .sinks = {}};
  const std::vector<double> seconds =
      seconds_of_runs(5, [&] { return kernels::ragged_attention(args, stream); });
  const uint64_t kv_bytes = kLayout.block_bytes() * kNumSequences * kBlocksPerSequence;
  return static_cast<double>(kv_bytes) / seconds[seconds.size() / 2];
}

// Zeros, on pages of our own.
Buffer touched_buffer(size_t size_bytes) {
  Buffer memory(MemoryKind::kHost, size_bytes);
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{0});
  return memory;
}
Buffer touched_buffer(DType dtype, int64_t count) {
  return touched_buffer(static_cast<size_t>(count) * dtype_bytes(dtype));
}

// Seconds of x [m, k] times weights [n, k], packed if a format is given, the best of several: what
// the device can do.
double best_product_seconds(StreamView stream,
                            DType dtype,
                            std::optional<PackedFormat> format,
                            int64_t m,
                            int64_t n,
                            int64_t k) {
  PackedMatrix packed{.format = format.value_or(PackedFormat::kPairs), .rows = n, .columns = k};
  const Buffer weights =
      format ? touched_buffer(packed.size_bytes()) : touched_buffer(dtype, n * k);
  packed.data = weights.data();
  const Buffer x = touched_buffer(dtype, m * k);
  const Buffer out = touched_buffer(dtype, m * n);
  const kernels::LinearArgs args{
      .x = {x.data(), dtype, {m, k}},
      .weight = format ? WeightView(packed) : WeightView(TensorView(weights.data(), dtype, {n, k})),
      .bias = {},
      .out = {out.data(), dtype, {m, n}}};
  return seconds_of_runs(4, [&] { return kernels::linear(args, stream); }).front();
}

// In which a read of weights is measured: quantised ones take computing even for one row.
std::optional<PackedFormat> format_of_reads(DType dtype) {
  const bool is_packed = dtype == DType::kBF16 && kernels::has_fast_products(PackedFormat::kPairs);
  return is_packed ? std::optional(PackedFormat::kPairs) : std::nullopt;
}

DeviceRates product_rates(StreamView stream, DType dtype, std::optional<PackedFormat> format) {
  constexpr int64_t kDepth = 2048;
  constexpr int64_t kReadRows = 16384;  // more than caches hold, mostly
  constexpr int64_t kTokens = 96;
  constexpr int64_t kRows = 512;
  const double read_s =
      best_product_seconds(stream, dtype, format_of_reads(dtype), 1, kReadRows, kDepth);
  const double compute_s = best_product_seconds(stream, dtype, format, kTokens, kRows, kDepth);
  const auto read_bytes =
      static_cast<double>(kReadRows * kDepth) * static_cast<double>(dtype_bytes(dtype));
  return {.read_bytes_per_s = read_bytes / read_s,
          .flop_per_s = 2.0 * static_cast<double>(kTokens * kRows * kDepth) / compute_s};
}

}  // namespace

double measure_kv_bandwidth(StreamView stream) {
  return on_adopted_thread(stream, kv_bandwidth);
}

DeviceRates measure_product_rates(StreamView stream,
                                  DType dtype,
                                  std::optional<PackedFormat> format) {
  return on_adopted_thread(stream,
                           [&](StreamView there) { return product_rates(there, dtype, format); });
}

}  // namespace lamina
