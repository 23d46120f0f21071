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

// At a few numbers of rows, and the middle context.
void measure_paces(Meter& meter, const ProfileGrid& grid, Profile& profile) {
  constexpr size_t kPoints = 3;
  const size_t count = grid.slice_rows.size();
  for (size_t i = std::min(count, kPoints); i-- > 0;) {
    const int32_t rows = grid.slice_rows[count - 1 - i * count / kPoints];
    const auto point = meter.paces(rows,
                                   {.sequences = rows,
                                    .context = grid.contexts[grid.contexts.size() / 2],
                                    .heads = grid.heads,
                                    .kv_heads = grid.kv_heads,
                                    .head_dim = grid.head_dim,
                                    .num_layers = grid.num_layers});
    if (point) profile.paces.push_back(*point);
  }
}

}  // namespace

void measure(Meter& meter, const ProfileGrid& grid, Profile& profile) {
  for (const int32_t rows : grid.slice_rows) {
    profile.slices.push_back(meter.slices(rows));
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
        if (point.layer_bytes() > grid.most_layer_bytes) continue;
        point.seconds = meter.attention_s(point);
        profile.attention.push_back(point);
      }
    }
  }
  measure_paces(meter, grid, profile);
  for (const int64_t bytes : grid.message_bytes) {
    TransportPoint point{.bytes = bytes};
    point.seconds = meter.round_trip_s(point);
    profile.transports.push_back(point);
  }
}

}  // namespace lamina::planner
