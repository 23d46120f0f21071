#include "planner/profile/meter.h"

#include <algorithm>

namespace lamina::planner {
namespace {

// Closer to each other where a machine's time for one more is a larger part of the whole.
std::vector<int32_t> numbers_up_to(int32_t most) {
  std::vector<int32_t> numbers;
  for (int32_t n = 1; n < most; n = std::max(n + 1, n * 3 / 2)) numbers.push_back(n);
  numbers.push_back(most);
  return numbers;
}

}  // namespace

ProfileGrid ProfileGrid::of(const ModelWork& model, int32_t max_batch, int32_t max_context) {
  ProfileGrid grid{.shapes = model.products,
                   .heads = model.num_heads,
                   .kv_heads = model.num_kv_heads,
                   .head_dim = model.head_dim,
                   .num_layers = model.num_layers,
                   .message_bytes = {64, 16 << 10, 64 << 10, 256 << 10}};
  grid.rows = numbers_up_to(max_batch);
  for (const int32_t part : {16, 4, 1}) {
    grid.sequences.push_back(std::max(1, max_batch / part));
    grid.contexts.push_back(std::max(1, max_context / part));
  }
  if (model.num_kv_heads % 2 != 0) grid.head_parts = {1};
  return grid;
}

void ProfileGrid::add_slices(int32_t max_batch) {
  slice_rows = numbers_up_to(max_batch);
}

namespace {

// At the middle of the grid; and alone again, right before, for a machine's pace drifts.
void measure_side_by_side(Meter& meter, const ProfileGrid& grid, Profile& profile) {
  const SlicePoint slices{.rows = grid.slice_rows[grid.slice_rows.size() / 2]};
  const AttentionPoint attention{.sequences = grid.sequences[grid.sequences.size() / 2],
                                 .context = grid.contexts[grid.contexts.size() / 2],
                                 .heads = grid.heads,
                                 .kv_heads = grid.kv_heads,
                                 .head_dim = grid.head_dim,
                                 .num_layers = grid.num_layers};
  const double slices_s = meter.slices_s(slices);
  const double attention_s = meter.attention_s(attention);
  const Meter::SideBySide together = meter.side_by_side(slices, attention);
  profile.slices_beside = std::max(1.0, together.slices_s / slices_s);
  profile.attention_beside = std::max(1.0, together.attention_s / attention_s);
}

}  // namespace

void measure(Meter& meter, const ProfileGrid& grid, Profile& profile) {
  for (const int32_t rows : grid.slice_rows) {
    profile.slices.push_back({.rows = rows, .seconds = meter.slices_s({.rows = rows})});
  }
  for (const ProductShape& shape : grid.shapes) {
    for (const int32_t rows : grid.rows) {
      ProductPoint point{.rows = rows, .outputs = shape.outputs, .inputs = shape.inputs};
      point.seconds = meter.product_s(point);
      profile.products.push_back(point);
    }
  }
  for (const int32_t part : grid.head_parts) {
    for (const int32_t sequences : grid.sequences) {
      for (const int32_t context : grid.contexts) {
        AttentionPoint point{.sequences = sequences,
                             .context = context,
                             .heads = grid.heads / part,
                             .kv_heads = grid.kv_heads / part,
                             .head_dim = grid.head_dim,
                             .num_layers = grid.num_layers};
        point.seconds = meter.attention_s(point);
        profile.attention.push_back(point);
      }
    }
  }
  if (!grid.slice_rows.empty()) measure_side_by_side(meter, grid, profile);
  for (const int64_t bytes : grid.message_bytes) {
    TransportPoint point{.bytes = bytes};
    point.seconds = meter.round_trip_s(point);
    profile.transports.push_back(point);
  }
}

}  // namespace lamina::planner
