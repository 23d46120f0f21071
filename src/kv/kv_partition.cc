#include "kv/kv_partition.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina {

Status KvPartition::verify() const {
  const std::vector<BlockRange> all = lanes();
  for (int32_t head = 0; head < num_kv_heads; ++head) {
    for (const BlockRange& lane : all) {
      const auto holders = std::count_if(tiles.begin(), tiles.end(), [&](const KvTile& tile) {
        return head >= tile.kv_heads.begin && head < tile.kv_heads.end &&
               tile.blocks.contains(lane.begin);
      });
      if (holders == 1) continue;
      return internal_error(fmt::format("head {} of blocks [{}, {}) has {} holders: {}",
                                        head,
                                        lane.begin,
                                        lane.end,
                                        holders,
                                        to_string()));
    }
  }
  return {};
}

std::vector<BlockRange> KvPartition::lanes() const {
  std::vector<BlockId> cuts = {0, num_blocks};
  for (const KvTile& tile : tiles) {
    cuts.push_back(tile.blocks.begin);
    cuts.push_back(tile.blocks.end);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<BlockRange> lanes;
  lanes.reserve(cuts.size() - 1);
  for (size_t i = 0; i + 1 < cuts.size(); ++i) lanes.push_back({cuts[i], cuts[i + 1]});
  return lanes;
}

double KvPartition::share_of(int32_t worker_idx) const {
  double area = 0;
  for (const KvTile& tile : tiles) {
    if (tile.worker_idx == worker_idx) {
      area += static_cast<double>(tile.kv_heads.count()) * tile.blocks.count();
    }
  }
  return area / (static_cast<double>(num_kv_heads) * num_blocks);
}

std::string KvPartition::to_string() const {
  std::string text;
  for (const KvTile& tile : tiles) {
    text += fmt::format("{}worker {}: heads [{}, {})",
                        text.empty() ? "" : "; ",
                        tile.worker_idx,
                        tile.kv_heads.begin,
                        tile.kv_heads.end);
    if (tile.blocks.count() < num_blocks) {
      text += fmt::format(" x blocks [{}, {})", tile.blocks.begin, tile.blocks.end);
    }
  }
  return text;
}

}  // namespace lamina
