// The Meter of CPUs.
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <optional>
#include <thread>

#include "base/checked_math.h"
#include "base/error.h"
#include "device/buffer.h"
#include "kernels/linear.h"
#include "planner/profile/meter.h"
#include "planner/profile/step_parts.h"
#include "tensor/packed_matrix.h"
#include "transport/measure/host_trips.h"

namespace lamina::planner {
namespace {

constexpr auto kDType = DType::kBF16;
constexpr WaitPolicy kSleeps = {.spin = {}};
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

// Seconds since some beginning, of a pool whose calls come from this thread. Where it is all of the
// pool, the time that it ran: turns of other programs on its core are no part of what is measured.
double now_s(StreamView stream) {
  if (stream.pool().num_threads() > 1) {
    return std::chrono::duration<double>(steady_clock().now().time_since_epoch()).count();
  }
  timespec ran{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
  return static_cast<double>(ran.tv_sec) + 1e-9 * static_cast<double>(ran.tv_nsec);
}

// Of body(run) on `stream`, for about `time`.
template <typename Body>
double median_s(Duration time, StreamView stream, const Body& body) {
  std::vector<double> seconds;
  throw_if_error(body(size_t{0}));
  const Deadline end = Deadline::after(time);
  while (seconds.size() < kLeastRuns || (!end.has_passed() && seconds.size() < kMostRuns)) {
    const double begin_s = now_s(stream);
    throw_if_error(body(seconds.size() + 1));
    seconds.push_back(now_s(stream) - begin_s);
  }
  const auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

// Repeats work on a pool's place in a thread of its own, for as long as this lives.
class Repeated {
 public:
  Repeated(StreamView stream, std::function<void(const std::atomic<bool>& is_over)> work)
      : thread_([this, stream, work = std::move(work)] {
          stream.adopt_this_thread();
          work(is_over_);
        }) {}
  Repeated(const Repeated&) = delete;
  Repeated& operator=(const Repeated&) = delete;
  ~Repeated() { is_over_ = true; }

 private:
  std::atomic<bool> is_over_ = false;
  std::jthread thread_;  // joined before the flag ends
};

class HostMeter final : public Meter {
 public:
  HostMeter(const HostMeterConfig& config,
            StreamView products,
            StreamView attention,
            const MeteredModel* model)
      : config_(config),
        products_(products),
        attention_(attention),
        arena_(touched(config.working_set_bytes)) {
    if (model != nullptr) slices_.emplace(*model);
  }

  double product_s(const ProductPoint& point) override;
  double slices_s(const SlicePoint& point) override;
  double attention_s(const AttentionPoint& point) override;
  SideBySide side_by_side(const SlicePoint& slices, const AttentionPoint& attention) override;
  double round_trip_s(const TransportPoint& point) override;

 private:
  [[nodiscard]] int32_t layers_of(const AttentionPoint& point) const;
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
  std::optional<SlicePart> slices_;
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
  return median_s(config_.time, products_, [&](size_t run) {
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

double HostMeter::slices_s(const SlicePoint& point) {
  products_.adopt_this_thread();
  if (!slices_) throw Error(StatusCode::kInvalidArgument, "no model whose slices to measure");
  return median_s(config_.time, products_, [&](size_t) { return slices_->run(point.rows); });
}

double HostMeter::attention_s(const AttentionPoint& point) {
  attention_.adopt_this_thread();
  const int32_t num_layers = layers_of(point);
  AttentionPart part(point, num_layers, attention_);
  return median_s(config_.time, attention_, [&](size_t) { return part.run(); }) / num_layers;
}

Meter::SideBySide HostMeter::side_by_side(const SlicePoint& slices,
                                          const AttentionPoint& attention) {
  SideBySide times;
  if (&products_.pool() == &attention_.pool()) {  // on one pool they take turns
    times.slices_s = slices_s(slices);
    times.attention_s = attention_s(attention);
    return times;
  }
  {
    const Repeated other(attention_, [&](const std::atomic<bool>& is_over) {
      AttentionPart part(attention, layers_of(attention), attention_);
      while (!is_over) throw_if_error(part.run());
    });
    times.slices_s = slices_s(slices);
  }
  const Repeated other(products_, [&](const std::atomic<bool>& is_over) {
    while (!is_over) throw_if_error(slices_->run(slices.rows));
  });
  times.attention_s = attention_s(attention);
  return times;
}

// As many as the model has, or as fill the working set if those are fewer.
int32_t HostMeter::layers_of(const AttentionPoint& point) const {
  const double layer_bytes = 2.0 * point.sequences * point.context * point.kv_heads *
                             point.head_dim * static_cast<double>(dtype_bytes(kDType));
  const double enough = std::ceil(static_cast<double>(config_.working_set_bytes) / layer_bytes);
  return static_cast<int32_t>(std::clamp(enough, 1.0, static_cast<double>(point.num_layers)));
}

// With a peer of its own. A layer's attention, and its slice, take longer than anybody polls: the
// other side sleeps and has to be woken.
double HostMeter::round_trip_s(const TransportPoint& point) {
  const auto bytes = static_cast<uint32_t>(point.bytes);
  // The peer inherits its place from this thread: it answers from where attention is.
  attention_.adopt_this_thread();
  measure::HostTrips trips({.kind = config_.transport, .max_bytes = bytes, .wait = kSleeps});
  products_.adopt_this_thread();
  const std::vector<double> sorted = trips.times_us(bytes, config_.time).value_or_throw();
  return 1e-6 * sorted[sorted.size() / 2];
}

}  // namespace

std::unique_ptr<Meter> make_host_meter(const HostMeterConfig& config,
                                       StreamView products,
                                       StreamView attention,
                                       const MeteredModel* model) {
  return std::make_unique<HostMeter>(config, products, attention, model);
}

}  // namespace lamina::planner
