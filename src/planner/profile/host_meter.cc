// The Meter of CPUs.
#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "kernels/linear.h"
#include "planner/profile/meter.h"
#include "planner/profile/pace_meter.h"
#include "planner/profile/step_parts.h"
#include "planner/profile/timing.h"
#include "planner/profile/working_set.h"
#include "tensor/packed_matrix.h"
#include "transport/measure/host_trips.h"

namespace lamina::planner {
namespace {

constexpr auto kDType = DType::kBF16;
constexpr WaitPolicy kSleeps = {.spin = {}};
constexpr size_t kMostRuns = 2000;

// Of body(run) on `stream`, for about the configured time.
template <typename Body>
double median_s(const HostMeterConfig& config, StreamView stream, const Body& body) {
  std::vector<double> seconds;
  throw_if_error(body(size_t{0}));
  const Deadline end = Deadline::after(config.time);
  while (seconds.size() < config.least_runs || (!end.has_passed() && seconds.size() < kMostRuns)) {
    const double begin_s = running_s(stream);
    throw_if_error(body(seconds.size() + 1));
    seconds.push_back(running_s(stream) - begin_s);
  }
  return median_of(std::move(seconds));
}

class HostMeter final : public Meter {
 public:
  HostMeter(const HostMeterConfig& config,
            StreamView products,
            StreamView attention,
            const MeteredModel* model)
      : config_(config),
        products_(products),
        attention_(attention),
        weights_(config.working_set_bytes, products) {
    if (model != nullptr) slices_.emplace(*model);
  }

  double product_s(const ProductPoint& point) override;
  SlicePoint slices(int32_t rows) override;
  double attention_s(const AttentionPoint& point) override;
  std::optional<PacePoint> paces(int32_t rows, const AttentionPoint& attention) override;
  double round_trip_s(const TransportPoint& point) override;

 private:
  [[nodiscard]] int32_t layers_of(const AttentionPoint& point) const;

  HostMeterConfig config_;
  StreamView products_;
  StreamView attention_;
  WorkingSet weights_;
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
  const Buffer x = dummy_values({point.rows, point.inputs}, products_);
  const Buffer out = dummy_values({point.rows, point.outputs}, products_);
  return median_s(config_, products_, [&](size_t run) {
    std::byte* const weights = weights_.place(run, bytes);
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

SlicePoint HostMeter::slices(int32_t rows) {
  if (!slices_) throw Error(StatusCode::kInvalidArgument, "no model whose slices to measure");
  products_.adopt_this_thread();
  const auto slices_s = [&](int32_t begin, int32_t end) {
    return median_s(config_, products_, [&](size_t) { return slices_->run_slices(begin, end); });
  };
  SlicePoint point{
      .rows = rows,
      .seconds = median_s(config_, products_, [&](size_t) { return slices_->run(rows); }),
      .first_seconds = slices_s(0, 1)};
  const int32_t num_between = slices_->num_slices() - 2;
  if (num_between > 0) point.layer_seconds = slices_s(1, num_between + 1) / num_between;
  point.rested_seconds = point.seconds;  // what rests cost a CPU is its pace in turns
  return point;
}

double HostMeter::attention_s(const AttentionPoint& point) {
  attention_.adopt_this_thread();
  const int32_t num_layers = layers_of(point);
  AttentionPart part(point, num_layers, attention_);
  return median_s(config_, attention_, [&](size_t) { return part.run(); }) / num_layers;
}

std::optional<PacePoint> HostMeter::paces(int32_t rows, const AttentionPoint& attention) {
  if (!slices_ || &products_.pool() == &attention_.pool()) return std::nullopt;
  AttentionPart part(attention, layers_of(attention), attention_);
  return measure_paces(*slices_, products_, part, attention_, rows, config_.least_runs);
}

// As many as the model has, or as fill the working set if those are fewer.
int32_t HostMeter::layers_of(const AttentionPoint& point) const {
  const double enough =
      std::ceil(static_cast<double>(config_.working_set_bytes) / point.layer_bytes());
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
