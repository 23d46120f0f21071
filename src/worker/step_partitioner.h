// StepPartitioner: which part of each step concerns each tile of a KvPartition: the sequences that
// have blocks in it, as the plan its holder is sent, and the rows of q, k and v that go there.
// Every process that runs the same steps in the same order comes to the same parts. Confined to one
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kv/kv_partition.h"
#include "plan/step_plan.h"
#include "wire/messages.h"

namespace lamina {

// Rows [begin, begin + count) of the step's tokens.
struct RowRange {
  int64_t begin = 0;
  int64_t count = 0;

  friend bool operator==(const RowRange&, const RowRange&) = default;
};

// A tile's part of a micro-batch's step.
struct TileStep {
  wire::AttentionPlan plan;  // without sequences: the tile takes no part, and no message goes there
  std::vector<RowRange> q_rows;  // ascending, not adjacent
  std::vector<RowRange> kv_rows;
  int64_t num_q_rows = 0;
  int64_t num_kv_rows = 0;
  bool is_partial = false;  // sequences of the step have blocks in other tiles too

  [[nodiscard]] bool takes_part() const { return !plan.sequences.empty(); }
};

class StepPartitioner {
 public:
  // Who is told of a sequence: tiles that hold blocks of it, or all of them.
  enum class Audience : uint8_t { kHolders, kAll };

  // `tiles`: the block ids of each.
  StepPartitioner(std::vector<BlockRange> tiles,
                  int32_t max_sequences,
                  int32_t block_size,
                  Audience audience = Audience::kHolders);

  // The parts of the next step, one for each tile; reuses what `parts` holds. kInvalidArgument if a
  // sequence has fewer blocks than tokens; `parts` and this object are of no use then.
  Status partition(const StepPlan& plan, int32_t micro_batch, std::vector<TileStep>& parts);

 private:
  struct Tile {
    BlockRange blocks;
    uint64_t num_steps = 0;                // that it took part in
    std::vector<int32_t> num_announced;    // by slot: blocks of its table that the holder knows
    std::vector<int32_t> num_held;         // by slot: of its blocks in use, those in this tile
    std::vector<uint32_t> released_slots;  // that the holder has yet to be told of
  };
  struct Slot {
    std::vector<BlockId> blocks;
    int32_t num_used = 0;  // of `blocks`, those that hold tokens
  };

  void release(int32_t slot);
  Status use_blocks(int32_t slot, int32_t num_used);
  void add_sequence(const SequenceStep& sequence, int64_t first_row, Tile& tile, TileStep& part);

  int32_t block_size_;
  Audience audience_;
  std::vector<Tile> tiles_;
  std::vector<Slot> slots_;
};

}  // namespace lamina
