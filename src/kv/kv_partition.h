// KvPartition: which part of the KV cache each attention worker holds. The cache is a rectangle, KV
// heads by block ids, and a partition tiles it: a head split cuts it across the heads, a sequence
// or request split across the block ids, a head x sequence split both ways. What a sequence meets
// depends on the blocks it is given (BlockAllocator); that the tiles cover the rectangle is what
// makes any choice correct. Plain arithmetic; names no device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kv/block_allocator.h"
#include "kv/head_partition.h"

namespace lamina {

// Block ids [begin, end).
struct BlockRange {
  BlockId begin = 0;
  BlockId end = 0;

  [[nodiscard]] int32_t count() const { return end - begin; }
  [[nodiscard]] bool contains(BlockId id) const { return id >= begin && id < end; }
  friend bool operator==(const BlockRange&, const BlockRange&) = default;
};

// One worker's piece: it holds the blocks of these ids for these heads.
struct KvTile {
  int32_t worker_idx = 0;
  HeadRange kv_heads;
  BlockRange blocks;

  friend bool operator==(const KvTile&, const KvTile&) = default;
};

struct KvPartition {
  int32_t num_kv_heads = 0;
  int32_t num_blocks = 0;
  std::vector<KvTile> tiles;  // by worker; a worker's tiles by head

  // kInternal unless the tiles cover each (head, block) once.
  [[nodiscard]] Status verify() const;
  // The block ids cut wherever a tile begins or ends: within a lane each head has one holder.
  [[nodiscard]] std::vector<BlockRange> lanes() const;
  // Share of the cache that a worker holds, of 1.
  [[nodiscard]] double share_of(int32_t worker_idx) const;
  // "worker 0: heads [0, 2); worker 1: heads [2, 3) x blocks [0, 500)".
  [[nodiscard]] std::string to_string() const;
};

}  // namespace lamina
