// The Meter of GPUs. Products and attention are captured as graphs, as steps are, and launched one
// after another until that takes longer than what the host adds; a step's slices are waited for
// each time, as sampling waits for them.
#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <thread>

#include "base/error.h"
#include "device/gpu_graph.h"
#include "kernels/linear.h"
#include "planner/profile/meter.h"
#include "planner/profile/step_parts.h"
#include "planner/profile/timing.h"
#include "planner/profile/working_set.h"
#include "transport/measure/device_trips.h"

namespace lamina::planner {
namespace {

constexpr auto kDType = DType::kBF16;
constexpr int kRounds = 5;
// Of a point's time, until clocks have settled at the limit of the GPU's power.
constexpr int kTimesForClocks = 10;
constexpr uint32_t kMostMessageBytes = 16 << 20;

double seconds_of(const std::function<Status()>& body) {
  const TimePoint begin = steady_clock().now();
  throw_if_error(body());
  return std::chrono::duration<double>(steady_clock().now() - begin).count();
}

// Of body(), which waits for its own work, for about `time`.
double waited_s(Duration time, const std::function<Status()>& body) {
  throw_if_error(body());  // loads and captures
  throw_if_error(body());
  std::vector<double> seconds;
  const Deadline end = Deadline::after(time);
  while (seconds.size() < kRounds || !end.has_passed()) seconds.push_back(seconds_of(body));
  return median_of(std::move(seconds));
}

// The same after rests, each as long as the work before.
double rested_s(const std::function<Status()>& body) {
  std::vector<double> seconds;
  while (seconds.size() < kRounds) {
    seconds.push_back(seconds_of(body));
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds.back()));
  }
  return median_of(std::move(seconds));
}

// Of what `enqueue` enqueues, captured, for about `time`.
double captured_s(Duration time, StreamView stream, const std::function<Status()>& enqueue) {
  throw_if_error(enqueue());  // loads what a capture may not
  throw_if_error(synchronize(stream));
  const GpuGraph graph = GpuGraph::capture(stream, enqueue).value_or_throw();
  const auto launches_s = [&](int count) {
    return seconds_of([&] {
      for (int i = 0; i < count; ++i) LAMINA_RETURN_IF_ERROR(graph.launch(stream));
      return synchronize(stream);
    });
  };
  launches_s(1);
  constexpr int kMostLaunches = 1000;
  const double round_s = std::chrono::duration<double>(time).count() / kRounds;
  const int count = static_cast<int>(std::clamp(round_s / launches_s(1), 1.0, 1.0 * kMostLaunches));
  std::vector<double> seconds;
  for (int i = 0; i < kRounds; ++i) seconds.push_back(launches_s(count) / count);
  return median_of(std::move(seconds));
}

class GpuMeter final : public Meter {
 public:
  GpuMeter(const GpuMeterConfig& config,
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
  // Two GPUs share neither caches nor memory.
  std::optional<PacePoint> paces(int32_t /*rows*/, const AttentionPoint& /*attention*/) override {
    return std::nullopt;
  }
  double round_trip_s(const TransportPoint& point) override;

 private:
  GpuMeterConfig config_;
  StreamView products_;
  StreamView attention_;
  WorkingSet weights_;
  std::optional<SlicePart> slices_;
  std::optional<measure::DeviceTrips> trips_;
};

double GpuMeter::product_s(const ProductPoint& point) {
  use_device_of(products_);
  constexpr size_t kMostCalls = 64;
  const size_t bytes = static_cast<size_t>(point.outputs * point.inputs) * dtype_bytes(kDType);
  const Buffer x = dummy_values({point.rows, point.inputs}, products_);
  const Buffer out = dummy_values({point.rows, point.outputs}, products_);
  weights_.place(0, bytes);  // grows where it is too small
  const size_t calls = std::min(weights_.num_places(bytes), kMostCalls);
  const double all_s = captured_s(config_.time, products_, [&]() -> Status {
    for (size_t i = 0; i < calls; ++i) {
      const TensorView weight(weights_.place(i, bytes), kDType, {point.outputs, point.inputs});
      LAMINA_RETURN_IF_ERROR(
          kernels::linear({.x = {x.data(), kDType, {point.rows, point.inputs}},
                           .weight = WeightView(weight),
                           .bias = {},
                           .out = {out.data(), kDType, {point.rows, point.outputs}}},
                          products_));
    }
    return {};
  });
  return all_s / static_cast<double>(calls);
}

SlicePoint GpuMeter::slices(int32_t rows) {
  if (!slices_) throw Error(StatusCode::kInvalidArgument, "no model whose slices to measure");
  use_device_of(products_);
  const auto slices_s = [&](int32_t begin, int32_t end) {
    return waited_s(config_.time, [&] {
      LAMINA_RETURN_IF_ERROR(slices_->run_slices(begin, end));
      return synchronize(products_);
    });
  };
  const auto all = [&] { return slices_->run(rows); };
  SlicePoint point{.rows = rows,
                   .seconds = waited_s(kTimesForClocks * config_.time, all),
                   .first_seconds = slices_s(0, 1),
                   .rested_seconds = rested_s(all)};
  const int32_t num_between = slices_->num_slices() - 2;
  if (num_between > 0) point.layer_seconds = slices_s(1, num_between + 1) / num_between;
  return point;
}

double GpuMeter::attention_s(const AttentionPoint& point) {
  use_device_of(attention_);
  const double enough =
      std::ceil(static_cast<double>(config_.working_set_bytes) / point.layer_bytes());
  const auto num_layers =
      static_cast<int32_t>(std::clamp(enough, 1.0, static_cast<double>(point.num_layers)));
  AttentionPart part(point, num_layers, attention_);
  return captured_s(config_.time, attention_, [&] { return part.run(); }) / num_layers;
}

// Messages take the form that steps' messages of their size do, and are captured as those are.
double GpuMeter::round_trip_s(const TransportPoint& point) {
  if (products_.device() == attention_.device()) {
    throw Error(StatusCode::kInvalidArgument, "one GPU makes no round trips");
  }
  if (!trips_) {
    trips_.emplace(measure::DeviceTrips::Config{
        .ours = products_.device(), .peers = attention_.device(), .max_bytes = kMostMessageBytes});
  }
  const auto bytes = static_cast<uint32_t>(point.bytes);
  const auto form =
      bytes <= cuda_p2p::Limits{}.lines_bytes ? cuda_p2p::Form::kLines : cuda_p2p::Form::kPushed;
  const std::vector<double> sorted =
      trips_->times_us({.drive = measure::Drive::kGraph, .form = form}, bytes, config_.time)
          .value_or_throw();
  return 1e-6 * sorted[sorted.size() / 2];
}

}  // namespace

std::unique_ptr<Meter> make_gpu_meter(const GpuMeterConfig& config,
                                      StreamView products,
                                      StreamView attention,
                                      const MeteredModel* model) {
  return std::make_unique<GpuMeter>(config, products, attention, model);
}

}  // namespace lamina::planner
