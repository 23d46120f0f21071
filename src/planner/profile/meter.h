// Meter: measures a machine for a profile. An interface, for CPUs here and for GPUs where there is
// one; what to measure is the same. Confined to one thread.
#pragma once

#include <cstdint>
#include <memory>
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
  // Median seconds of a point; its own `seconds` does not matter. Throws Error.
  virtual double product_s(const ProductPoint& point) = 0;
  virtual double slices_s(const SlicePoint& point) = 0;
  virtual double attention_s(const AttentionPoint& point) = 0;
  // The same, each while the other is repeated on its own pool without end.
  struct SideBySide {
    double slices_s = 0;
    double attention_s = 0;
  };
  virtual SideBySide side_by_side(const SlicePoint& slices, const AttentionPoint& attention) = 0;
  virtual double round_trip_s(const TransportPoint& point) = 0;
};

struct HostMeterConfig {
  TransportKind transport = TransportKind::kShm;
  // Weights and KV are cycled through so much memory, as a model's own are: what does not fit
  // caches there does not fit them here.
  uint64_t working_set_bytes = uint64_t{512} << 20;
  Duration time = std::chrono::milliseconds(20);  // of each point
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
  std::vector<int64_t> message_bytes;

  void add_slices(int32_t max_batch);
  // The shapes of a model, and numbers of rows and sequences up to `max_batch`.
  static ProfileGrid of(const ModelWork& model, int32_t max_batch, int32_t max_context);
};

// Fills in the points of the grid.
void measure(Meter& meter, const ProfileGrid& grid, Profile& profile);

}  // namespace lamina::planner
