#include "worker/step_partitioner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"

namespace lamina {
namespace {

void append_rows(int64_t begin, int64_t count, std::vector<RowRange>& ranges, int64_t& total) {
  total += count;
  if (!ranges.empty() && ranges.back().begin + ranges.back().count == begin) {
    ranges.back().count += count;
  } else {
    ranges.push_back({begin, count});
  }
}

void clear(TileStep& part) {
  part.plan.sequences.clear();
  part.plan.released_slots.clear();
  part.plan.new_blocks.clear();
  part.q_rows.clear();
  part.kv_rows.clear();
  part.num_q_rows = part.num_kv_rows = 0;
  part.is_partial = false;
}

}  // namespace

StepPartitioner::StepPartitioner(std::vector<BlockRange> tiles,
                                 int32_t max_sequences,
                                 int32_t block_size,
                                 Audience audience)
    : block_size_(block_size), audience_(audience), slots_(static_cast<size_t>(max_sequences)) {
  for (const BlockRange& blocks : tiles) {
    Tile& tile = tiles_.emplace_back();
    tile.blocks = blocks;
    tile.num_announced.resize(slots_.size(), 0);
    tile.num_held.resize(slots_.size(), 0);
  }
}

Status StepPartitioner::partition(const StepPlan& plan,
                                  int32_t micro_batch,
                                  std::vector<TileStep>& parts) {
  parts.resize(tiles_.size());
  for (TileStep& part : parts) clear(part);
  for (const int32_t slot : plan.released_slots) release(slot);
  for (const SequenceStep& sequence : plan.sequences) {
    if (sequence.starts) release(sequence.slot);
  }
  int64_t row = 0;
  for (const SequenceStep& sequence : plan.sequences) {
    std::vector<BlockId>& blocks = slots_[static_cast<size_t>(sequence.slot)].blocks;
    blocks.insert(blocks.end(), sequence.new_blocks.begin(), sequence.new_blocks.end());
    const int32_t num_tokens = sequence.first_position + sequence.num_tokens;
    LAMINA_RETURN_IF_ERROR(use_blocks(sequence.slot, ceil_div(num_tokens, block_size_)));
    for (size_t i = 0; i < tiles_.size(); ++i) add_sequence(sequence, row, tiles_[i], parts[i]);
    row += sequence.num_tokens;
  }
  for (size_t i = 0; i < tiles_.size(); ++i) {
    if (!parts[i].takes_part()) continue;
    parts[i].plan.step = ++tiles_[i].num_steps;
    parts[i].plan.micro_batch = static_cast<uint32_t>(micro_batch);
    parts[i].plan.released_slots.swap(tiles_[i].released_slots);
  }
  return {};
}

void StepPartitioner::release(int32_t slot) {
  const auto idx = static_cast<size_t>(slot);
  slots_[idx] = {};
  for (Tile& tile : tiles_) {
    if (tile.num_announced[idx] > 0) tile.released_slots.push_back(static_cast<uint32_t>(slot));
    tile.num_announced[idx] = 0;
    tile.num_held[idx] = 0;
  }
}

Status StepPartitioner::use_blocks(int32_t slot, int32_t num_used) {
  const auto idx = static_cast<size_t>(slot);
  Slot& state = slots_[idx];
  if (num_used > static_cast<int32_t>(state.blocks.size())) {
    return invalid_argument(
        fmt::format("slot {} needs {} blocks and has {}", slot, num_used, state.blocks.size()));
  }
  for (; state.num_used < num_used; ++state.num_used) {
    const BlockId block = state.blocks[static_cast<size_t>(state.num_used)];
    for (Tile& tile : tiles_) tile.num_held[idx] += tile.blocks.contains(block) ? 1 : 0;
  }
  return {};
}

void StepPartitioner::add_sequence(const SequenceStep& sequence,
                                   int64_t first_row,
                                   Tile& tile,
                                   TileStep& part) {
  const auto idx = static_cast<size_t>(sequence.slot);
  const Slot& slot = slots_[idx];
  if (tile.num_held[idx] == 0 && audience_ == Audience::kHolders) return;
  part.is_partial |= tile.num_held[idx] < slot.num_used;

  // The holder hears of the sequence when its first block here is used, then of all its blocks.
  const std::span<const BlockId> unknown =
      std::span(slot.blocks).subspan(static_cast<size_t>(tile.num_announced[idx]));
  part.plan.sequences.push_back({.slot = static_cast<uint32_t>(sequence.slot),
                                 .first_position = static_cast<uint32_t>(sequence.first_position),
                                 .num_tokens = static_cast<uint32_t>(sequence.num_tokens),
                                 .num_new_blocks = static_cast<uint32_t>(unknown.size()),
                                 .starts = tile.num_announced[idx] == 0 ? 1U : 0U});
  for (const BlockId block : unknown) {
    part.plan.new_blocks.push_back(tile.blocks.contains(block) ? block - tile.blocks.begin
                                                               : kNoBlock);
  }
  tile.num_announced[idx] = static_cast<int32_t>(slot.blocks.size());

  append_rows(first_row, sequence.num_tokens, part.q_rows, part.num_q_rows);
  const int32_t end = sequence.first_position + sequence.num_tokens;
  for (int32_t position = sequence.first_position; position < end;) {
    const int32_t run_end = std::min(end, (position / block_size_ + 1) * block_size_);
    if (tile.blocks.contains(slot.blocks[static_cast<size_t>(position / block_size_)])) {
      append_rows(first_row + position - sequence.first_position,
                  run_end - position,
                  part.kv_rows,
                  part.num_kv_rows);
    }
    position = run_end;
  }
}

}  // namespace lamina
