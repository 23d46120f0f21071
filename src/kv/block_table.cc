#include "kv/block_table.h"

#include <fmt/format.h>

#include "base/check.h"

namespace lamina {
namespace {

constexpr int32_t kNobody = -1;

}  // namespace

BlockTables::BlockTables(int32_t num_slots, int32_t max_blocks, int32_t num_blocks)
    : max_blocks_(max_blocks) {
  LAMINA_CHECK_GE(num_slots, 0);
  LAMINA_CHECK_GE(max_blocks, 0);
  LAMINA_CHECK_GE(num_blocks, 0);
  tables_.resize(static_cast<size_t>(num_slots));
  owner_.resize(static_cast<size_t>(num_blocks), kNobody);
}

Status BlockTables::clear(int32_t slot) {
  if (slot < 0 || slot >= num_slots()) {
    return invalid_argument(fmt::format("block tables: slot {} of {}", slot, num_slots()));
  }
  Table& table = tables_[static_cast<size_t>(slot)];
  disown(table.blocks);
  table.blocks.clear();
  ++table.generation;
  return {};
}

void BlockTables::disown(std::span<const BlockId> blocks) {
  for (const BlockId id : blocks) {
    if (id == kNoBlock) continue;
    owner_[static_cast<size_t>(id)] = kNobody;
    --num_held_;
  }
}

Status BlockTables::append(int32_t slot, std::span<const BlockId> blocks) {
  if (slot < 0 || slot >= num_slots()) {
    return invalid_argument(fmt::format("block tables: slot {} of {}", slot, num_slots()));
  }
  std::vector<BlockId>& table = tables_[static_cast<size_t>(slot)].blocks;
  if (blocks.size() > static_cast<size_t>(max_blocks_) - table.size()) {
    return invalid_argument(fmt::format("block tables: slot {} holds {} blocks, {} more pass {}",
                                        slot,
                                        table.size(),
                                        blocks.size(),
                                        max_blocks_));
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BlockId id = blocks[i];
    if (id == kNoBlock) continue;
    const bool in_range = id >= 0 && static_cast<size_t>(id) < owner_.size();
    if (!in_range || owner_[static_cast<size_t>(id)] != kNobody) {
      // Owners were taken one by one, which finds a block named twice in this call; undo them.
      disown(blocks.first(i));
      if (!in_range) {
        return invalid_argument(fmt::format("block tables: block {} of {}", id, owner_.size()));
      }
      return invalid_argument(
          fmt::format("block tables: block {} for slot {} is in use", id, slot));
    }
    owner_[static_cast<size_t>(id)] = slot;
    ++num_held_;
  }
  table.insert(table.end(), blocks.begin(), blocks.end());
  return {};
}

const BlockTables::Table& BlockTables::table(int32_t slot) const {
  LAMINA_CHECK_GE(slot, 0);
  LAMINA_CHECK_LT(slot, num_slots());
  return tables_[static_cast<size_t>(slot)];
}

std::span<const BlockId> BlockTables::blocks(int32_t slot) const {
  return table(slot).blocks;
}

uint64_t BlockTables::generation(int32_t slot) const {
  return table(slot).generation;
}

}  // namespace lamina
