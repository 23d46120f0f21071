// Meter: measures a machine for a profile. An interface, for CPUs here and for GPUs where there is
// one; what to measure is the same. Confined to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/stream.h"
#include "plan/model_work.h"
#include "planner/profile/profile.h"
#include "transport/endpoint.h"
#include "worker/rank_group.h"

namespace lamina::planner {

class Meter {
 public:
  virtual ~Meter() = default;
  // Medians of a point, whose own `seconds` do not matter. Throws Error.
  virtual double product_s(const ProductPoint& point) = 0;
  virtual SlicePoint slices(int32_t rows) = 0;
  virtual double attention_s(const AttentionPoint& point) = 0;
  // What slices and attention cost each other; nothing unless they have a pool each of one machine.
  virtual std::optional<PacePoint> paces(int32_t rows, const AttentionPoint& attention) = 0;
  virtual double round_trip_s(const TransportPoint& point) = 0;
};

struct HostMeterConfig {
  TransportKind transport = TransportKind::kShm;
  // Weights and KV are cycled through so much memory, as a model's own are: what does not fit
  // caches there does not fit them here.
  uint64_t working_set_bytes = uint64_t{512} << 20;
  Duration time = std::chrono::milliseconds(20);  // of each point
  size_t least_runs = 5;                          // however long they take
};

// A model with its weights, on the pool that is to compute it.
struct MeteredModel {
  RankModel rank;
  StepLimits limits;
};

// By the code that serves, in bf16, on the streams' pools; both outlive it. They may be one.
// Without `model`, which outlives it too, there are no slices to measure.
std::unique_ptr<Meter> make_host_meter(const HostMeterConfig& config,
                                       StreamView products,
                                       StreamView attention,
                                       const MeteredModel* model = nullptr);

struct GpuMeterConfig {
  uint64_t working_set_bytes = uint64_t{1} << 30;  // as a host's
  Duration time = std::chrono::milliseconds(20);   // of each point
};

// By the code that serves, in bf16, captured as steps are. Round trips are those of devices that
// send by themselves (cuda_p2p), from the products' GPU to attention's, in another process. The
// streams may be of one GPU, which makes none. Throws Error: kUnavailable without a GPU.
std::unique_ptr<Meter> make_gpu_meter(const GpuMeterConfig& config,
                                      StreamView products,
                                      StreamView attention,
                                      const MeteredModel* model = nullptr);

struct ProfileGrid {
  std::vector<ProductShape> shapes;
  std::vector<int32_t> rows;        // of products
  std::vector<int32_t> slice_rows;  // none without a model to measure
  std::vector<int32_t> sequences;
  std::vector<int32_t> contexts;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t num_layers = 0;
  std::vector<int32_t> head_parts = {1, 2};  // of attention: all heads, half of them
  double most_layer_bytes = 8e9;             // of keys and values: larger points are left out
  std::vector<int64_t> message_bytes;        // none: no round trips

  void add_slices(int32_t max_batch);
  // The shapes of a model, and numbers of rows and sequences up to `max_batch`.
  static ProfileGrid of(const ModelWork& model, int32_t max_batch, int32_t max_context);
};

// Fills in the points of the grid.
void measure(Meter& meter, const ProfileGrid& grid, Profile& profile);

}  // namespace lamina::planner
