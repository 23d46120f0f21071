#include "planner/profile/meter.h"

#include <algorithm>

namespace lamina::planner {

ProfileGrid ProfileGrid::of(const ModelWork& model, int32_t max_batch, int32_t max_context) {
  ProfileGrid grid{.shapes = model.products,
                   .heads = model.num_heads,
                   .kv_heads = model.num_kv_heads,
                   .head_dim = model.head_dim,
                   .message_bytes = {64, 16 << 10, 64 << 10, 256 << 10}};
  for (int32_t rows = 1; rows <= max_batch; rows = std::max(rows + 1, rows * 3 / 2)) {
    grid.rows.push_back(rows);
  }
  if (grid.rows.back() != max_batch) grid.rows.push_back(max_batch);
  for (const int32_t part : {16, 4, 1}) {
    grid.sequences.push_back(std::max(1, max_batch / part));
    grid.contexts.push_back(std::max(1, max_context / part));
  }
  if (model.num_kv_heads % 2 != 0) grid.head_parts = {1};
  return grid;
}

void measure(Meter& meter, const ProfileGrid& grid, Profile& profile) {
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
                             .head_dim = grid.head_dim};
        point.seconds = meter.attention_s(point);
        profile.attention.push_back(point);
      }
    }
  }
  for (const int64_t bytes : grid.message_bytes) {
    TransportPoint point{.bytes = bytes};
    point.seconds = meter.round_trip_s(point);
    profile.transports.push_back(point);
  }
}

}  // namespace lamina::planner
