// The Meter of CPUs.
#include <algorithm>
#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "device/buffer.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "planner/profile/meter.h"
#include "tensor/packed_matrix.h"
#include "transport/measure/host_trips.h"

namespace lamina::planner {
namespace {

constexpr auto kDType = DType::kBF16;
constexpr int32_t kBlockSize = 64;  // as --block-size
constexpr size_t kLeastRuns = 5;
constexpr size_t kMostRuns = 2000;

// Zeros, on pages of our own.
Buffer touched(size_t size_bytes) {
  Buffer memory(MemoryKind::kHost, size_bytes);
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{0});
  return memory;
}
Buffer touched_rows(int64_t rows, int64_t columns) {
  return touched(static_cast<size_t>(rows * columns) * dtype_bytes(kDType));
}

// Of body(run), for about `time`.
template <typename Body>
double median_s(Duration time, const Body& body) {
  std::vector<double> seconds;
  throw_if_error(body(size_t{0}));
  const Deadline end = Deadline::after(time);
  while (seconds.size() < kLeastRuns || (!end.has_passed() && seconds.size() < kMostRuns)) {
    const TimePoint begin = steady_clock().now();
    throw_if_error(body(seconds.size() + 1));
    seconds.push_back(std::chrono::duration<double>(steady_clock().now() - begin).count());
  }
  const auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

class HostMeter final : public Meter {
 public:
  HostMeter(const HostMeterConfig& config, StreamView products, StreamView attention)
      : config_(config),
        products_(products),
        attention_(attention),
        arena_(touched(config.working_set_bytes)) {}

  double product_s(const ProductPoint& point) override;
  double attention_s(const AttentionPoint& point) override;
  double round_trip_s(const TransportPoint& point) override;

 private:
  // Where run `run` finds its weights or keys: one place after another of the arena.
  std::byte* place(size_t run, size_t size_bytes) {
    constexpr size_t kAlignment = 4096;
    const size_t stride = ceil_div(size_bytes, kAlignment) * kAlignment;
    if (stride > arena_.size_bytes()) arena_ = touched(stride);
    return arena_.data() + run % (arena_.size_bytes() / stride) * stride;
  }

  HostMeterConfig config_;
  StreamView products_;
  StreamView attention_;
  Buffer arena_;
};

double HostMeter::product_s(const ProductPoint& point) {
  products_.adopt_this_thread();
  PackedMatrix packed{
      .format = PackedFormat::kPairs, .rows = point.outputs, .columns = point.inputs};
  const bool is_packed =
      kernels::has_fast_products(PackedFormat::kPairs) && point.inputs % kBlockColumns == 0;
  const size_t bytes =
      is_packed ? packed.size_bytes()
                : static_cast<size_t>(point.outputs * point.inputs) * dtype_bytes(kDType);
  const Buffer x = touched_rows(point.rows, point.inputs);
  const Buffer out = touched_rows(point.rows, point.outputs);
  return median_s(config_.time, [&](size_t run) {
    std::byte* const weights = place(run, bytes);
    packed.data = weights;
    return kernels::linear(
        {.x = {x.data(), kDType, {point.rows, point.inputs}},
         .weight = is_packed
                       ? WeightView(packed)
                       : WeightView(TensorView(weights, kDType, {point.outputs, point.inputs})),
         .bias = {},
         .out = {out.data(), kDType, {point.rows, point.outputs}}},
        products_);
  });
}

double HostMeter::attention_s(const AttentionPoint& point) {
  attention_.adopt_this_thread();
  const int32_t blocks_of_one = ceil_div(point.context, kBlockSize);
  const int32_t num_blocks = blocks_of_one * point.sequences;
  const Shape cache = {num_blocks, point.kv_heads, kBlockSize, point.head_dim};
  const size_t half = static_cast<size_t>(cache.num_elements()) * dtype_bytes(kDType);
  const int64_t width = int64_t{point.heads} * point.head_dim;
  const Buffer q = touched_rows(point.sequences, width);
  const Buffer out = touched_rows(point.sequences, width);
  std::vector<int32_t> query_begin(static_cast<size_t>(point.sequences) + 1);
  std::iota(query_begin.begin(), query_begin.end(), 0);
  const std::vector<int32_t> context(static_cast<size_t>(point.sequences), point.context);
  std::vector<int32_t> tables(static_cast<size_t>(num_blocks));
  std::iota(tables.begin(), tables.end(), 0);
  const Shape shape = {point.sequences, point.heads, point.head_dim};
  return median_s(config_.time, [&](size_t run) {
    std::byte* const keys = place(run, 2 * half);
    return kernels::ragged_attention({.q = {q.data(), kDType, shape},
                                      .k_cache = {keys, kDType, cache},
                                      .v_cache = {keys + half, kDType, cache},
                                      .out = {out.data(), kDType, shape},
                                      .lse = {},
                                      .batch = {query_begin, context, tables, blocks_of_one},
                                      .scale = 1.0F,
                                      .window = {},
                                      .soft_cap = {},
                                      .alibi_slopes = {},
                                      .sinks = {}},
                                     attention_);
  });
}

// With a peer of its own, which waits for no more than a while.
double HostMeter::round_trip_s(const TransportPoint& point) {
  const auto bytes = static_cast<uint32_t>(point.bytes);
  // The peer inherits its place from this thread: it answers from where attention is.
  attention_.adopt_this_thread();
  measure::HostTrips trips({.kind = config_.transport, .max_bytes = bytes, .wait = {}});
  products_.adopt_this_thread();
  const std::vector<double> sorted = trips.times_us(bytes, config_.time).value_or_throw();
  return 1e-6 * sorted[sorted.size() / 2];
}

}  // namespace

std::unique_ptr<Meter> make_host_meter(const HostMeterConfig& config,
                                       StreamView products,
                                       StreamView attention) {
  return std::make_unique<HostMeter>(config, products, attention);
}

}  // namespace lamina::planner
