#include "plan/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/checked_math.h"

namespace lamina {
namespace {

constexpr std::array<std::pair<PartitionKind, std::string_view>, 5> kNames = {{
    {PartitionKind::kAuto, "auto"},
    {PartitionKind::kHead, "head"},
    {PartitionKind::kRequest, "request"},
    {PartitionKind::kSequence, "sequence"},
    {PartitionKind::kHeadSequence, "head-sequence"},
}};

// Tokens of a run of blocks: the tile of keys of the attention operators.
constexpr int32_t kRunTokens = 64;
// A head split whose slowest worker takes this much longer than its fair share is still preferred:
// a head that is split travels as f32 partials, and its queries go to two workers.
constexpr double kTolerableImbalance = 1.1;
// Pieces of a head below this share are not worth a data connection of their own.
constexpr double kLeastPieceOfHead = 1.0 / 32;

std::vector<double> speeds_of(std::span<const PartitionWorker> workers) {
  std::vector<double> speeds;
  speeds.reserve(workers.size());
  for (const PartitionWorker& worker : workers) speeds.push_back(worker.speed);
  return speeds;
}

// Where each worker's share begins, on a line from 0 to `length`; one more: `length`.
std::vector<double> share_bounds(std::span<const PartitionWorker> workers, double length) {
  double total = 0;
  for (const PartitionWorker& worker : workers) total += worker.speed;
  std::vector<double> bounds = {0.0};
  bounds.reserve(workers.size() + 1);
  double sum = 0;
  for (const PartitionWorker& worker : workers) {
    sum += worker.speed;
    bounds.push_back(length * sum / total);
  }
  bounds.back() = length;
  return bounds;
}

// How much longer the slowest worker of a head split takes than with fair shares.
double head_imbalance(const PartitionRequest& request) {
  const std::vector<double> speeds = speeds_of(request.workers);
  const std::vector<HeadRange> ranges = split_heads(request.layout.num_kv_heads, speeds);
  double slowest = 0;
  double total_speed = 0;
  for (const double speed : speeds) total_speed += speed;
  for (size_t i = 0; i < ranges.size(); ++i) {
    slowest = std::max(slowest, ranges[i].count() / speeds[i]);
  }
  return slowest * total_speed / request.layout.num_kv_heads;
}

std::vector<KvTile> head_tiles(const PartitionRequest& request, int32_t num_blocks) {
  std::vector<KvTile> tiles;
  for (const HeadRange& heads :
       split_heads(request.layout.num_kv_heads, speeds_of(request.workers))) {
    tiles.push_back({.worker_idx = static_cast<int32_t>(tiles.size()),
                     .kv_heads = heads,
                     .blocks = {0, num_blocks}});
  }
  return tiles;
}

std::vector<KvTile> block_tiles(const PartitionRequest& request, int32_t num_blocks) {
  const std::vector<double> bounds = share_bounds(request.workers, num_blocks);
  std::vector<KvTile> tiles;
  for (size_t i = 0; i < request.workers.size(); ++i) {
    const BlockRange blocks = {static_cast<BlockId>(std::lround(bounds[i])),
                               static_cast<BlockId>(std::lround(bounds[i + 1]))};
    if (blocks.count() == 0) continue;
    tiles.push_back({.worker_idx = static_cast<int32_t>(i),
                     .kv_heads = {0, request.layout.num_kv_heads},
                     .blocks = blocks});
  }
  return tiles;
}

// A bound that leaves next to nothing of a head on one side moves to the head's edge.
double snap(double bound) {
  const double nearest = std::round(bound);
  return std::abs(bound - nearest) < kLeastPieceOfHead ? nearest : bound;
}

// The heads stand side by side on a line, which is cut into shares: whoever's share ends inside a
// head has its blocks up to there, the next worker those from there on. At most one head is split
// at each cut, and everybody's share is exact.
std::vector<KvTile> head_sequence_tiles(const PartitionRequest& request, int32_t num_blocks) {
  const std::vector<double> bounds = share_bounds(request.workers, request.layout.num_kv_heads);
  std::vector<KvTile> tiles;
  for (size_t i = 0; i < request.workers.size(); ++i) {
    const double end = snap(bounds[i + 1]);
    double begin = snap(bounds[i]);
    while (begin < end) {
      const auto head = static_cast<int32_t>(std::floor(begin));
      const double first = begin - head;
      const bool is_whole = first == 0.0 && end - begin >= 1.0;
      const auto num_heads = is_whole ? static_cast<int32_t>(std::floor(end - begin)) : 1;
      const double last = is_whole ? 1.0 : std::min(end - head, 1.0);
      const BlockRange blocks = {static_cast<BlockId>(std::lround(first * num_blocks)),
                                 static_cast<BlockId>(std::lround(last * num_blocks))};
      if (blocks.count() > 0) {
        tiles.push_back({.worker_idx = static_cast<int32_t>(i),
                         .kv_heads = {head, head + num_heads},
                         .blocks = blocks});
      }
      begin = is_whole ? begin + num_heads : head + last;
    }
  }
  return tiles;
}

KvPartition make_partition(const PartitionRequest& request,
                           PartitionKind kind,
                           int32_t num_blocks) {
  KvPartition partition{
      .num_kv_heads = request.layout.num_kv_heads, .num_blocks = num_blocks, .tiles = {}};
  switch (kind) {
    case PartitionKind::kAuto:
    case PartitionKind::kHead:
      partition.tiles = head_tiles(request, num_blocks);
      break;
    case PartitionKind::kRequest:
    case PartitionKind::kSequence:
      partition.tiles = block_tiles(request, num_blocks);
      break;
    case PartitionKind::kHeadSequence:
      partition.tiles = head_sequence_tiles(request, num_blocks);
      break;
  }
  return partition;
}

uint64_t bytes_of_head(const KvLayout& layout) {
  KvLayout head = layout;
  head.num_kv_heads = 1;
  return head.block_bytes();
}

uint64_t bytes_at(const KvPartition& partition, const KvLayout& layout, int32_t worker_idx) {
  uint64_t head_blocks = 0;
  for (const KvTile& tile : partition.tiles) {
    if (tile.worker_idx != worker_idx) continue;
    head_blocks +=
        static_cast<uint64_t>(tile.kv_heads.count()) * static_cast<uint64_t>(tile.blocks.count());
  }
  return head_blocks * bytes_of_head(layout);
}

// The first worker whose share does not fit its memory.
std::optional<size_t> overfull_worker(const PartitionRequest& request,
                                      const KvPartition& partition) {
  for (size_t i = 0; i < request.workers.size(); ++i) {
    if (bytes_at(partition, request.layout, static_cast<int32_t>(i)) >
        request.workers[i].budget_bytes) {
      return i;
    }
  }
  return std::nullopt;
}

Status too_small(const PartitionRequest& request, const KvPartition& needed, size_t worker_idx) {
  const PartitionWorker& worker = request.workers[worker_idx];
  const uint64_t bytes = bytes_at(needed, request.layout, static_cast<int32_t>(worker_idx));
  return resource_exhausted(
      fmt::format("attention worker {} has {} MiB for KV, but its share of one sequence of "
                  "--max-model-len ({} blocks of {} tokens) needs {} MiB: raise "
                  "--kv-cache-memory-bytes or lower --max-model-len",
                  worker.name,
                  worker.budget_bytes >> 20,
                  request.min_blocks,
                  request.layout.block_size,
                  ceil_div<uint64_t>(bytes, uint64_t{1} << 20)));
}

// The most blocks that fit everybody: by bisection, since shares are rounded to whole blocks.
int32_t most_blocks(const PartitionRequest& request, PartitionKind kind) {
  int32_t fits = request.min_blocks;
  int32_t too_many = request.max_blocks + 1;
  while (fits + 1 < too_many) {
    const int32_t middle = fits + (too_many - fits) / 2;
    (overfull_worker(request, make_partition(request, kind, middle)) ? too_many : fits) = middle;
  }
  return fits;
}

BlockLanes lanes_of(const PartitionRequest& request,
                    PartitionKind kind,
                    const KvPartition& partition) {
  BlockLanes lanes;
  for (const BlockRange& lane : partition.lanes()) lanes.num_blocks.push_back(lane.count());
  const bool is_whole_request = kind == PartitionKind::kRequest;
  lanes.run_length = is_whole_request ? 0 : std::max(1, kRunTokens / request.layout.block_size);
  return lanes;
}

}  // namespace

std::string_view partition_name(PartitionKind kind) {
  for (const auto& [named, name] : kNames) {
    if (named == kind) return name;
  }
  return "unknown";
}

std::optional<PartitionKind> parse_partition(std::string_view name) {
  for (const auto& [kind, known] : kNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

void even_out_speeds(std::span<PartitionWorker> workers) {
  constexpr double kNoise = 0.2;
  std::vector<double> measured;
  for (const PartitionWorker& worker : workers) {
    if (worker.speed > 0) measured.push_back(worker.speed);
  }
  double median = 1.0;
  if (!measured.empty()) {
    const auto middle = measured.begin() + static_cast<ptrdiff_t>(measured.size() / 2);
    std::nth_element(measured.begin(), middle, measured.end());
    median = *middle;
  }
  for (PartitionWorker& worker : workers) {
    const bool is_usual = std::abs(worker.speed - median) <= kNoise * median;
    if (is_usual || worker.speed <= 0) worker.speed = median;
  }
}

Result<PlannedPartition> plan_partition(const PartitionRequest& request) {
  PlannedPartition planned{.kind = request.kind, .partition = {}, .lanes = {}};
  if (planned.kind == PartitionKind::kAuto) {
    planned.kind = head_imbalance(request) <= kTolerableImbalance ? PartitionKind::kHead
                                                                  : PartitionKind::kHeadSequence;
  }
  const KvPartition least = make_partition(request, planned.kind, request.min_blocks);
  if (const auto worker = overfull_worker(request, least)) {
    return too_small(request, least, *worker);
  }
  planned.partition = make_partition(request, planned.kind, most_blocks(request, planned.kind));
  LAMINA_RETURN_IF_ERROR(planned.partition.verify());
  planned.lanes = lanes_of(request, planned.kind, planned.partition);
  return planned;
}

}  // namespace lamina
