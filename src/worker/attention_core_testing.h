// Plans for tests of an attention worker's core: sequences that come, go on, change places within
// the step and end, as a model worker tells of them.
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "base/rng.h"
#include "kv/block_allocator.h"
#include "wire/messages.h"
#include "worker/attention_core.h"

namespace lamina {

class RandomPlans {
 public:
  // Of micro-batch 0. Slots' sequences never have more blocks than the configuration allows.
  RandomPlans(const AttentionCoreConfig& config, uint64_t seed)
      : config_(config),
        rng_(seed),
        allocator_(config.num_blocks),
        slots_(static_cast<size_t>(config.max_sequences)) {}

  // Has at least one sequence.
  wire::AttentionPlan next() {
    wire::AttentionPlan plan;
    for (const uint32_t slot : slots_in_order()) {
      const bool is_last = slot == last_of_order_;
      const bool is_needed = is_last && plan.sequences.empty();
      if (!is_needed && rng_.next_below(5) == 0) continue;
      const bool ends = slots_[slot].num_tokens > 0 && rng_.next_below(8) == 0;
      if (ends) release(slot, plan);
      add(slot, plan);
    }
    return plan;
  }

 private:
  struct Slot {
    std::vector<BlockId> blocks;
    uint32_t num_tokens = 0;
  };

  // Mostly the same: sequences keep their places from step to step.
  std::vector<uint32_t> slots_in_order() {
    std::vector<uint32_t> order(slots_.size());
    std::iota(order.begin(), order.end(), 0U);
    if (rng_.next_below(3) == 0) {
      std::swap(order[rng_.next_below(order.size())], order[rng_.next_below(order.size())]);
    }
    last_of_order_ = order.back();
    return order;
  }

  // Says so in the plan, or leaves it to the sequence that starts there.
  void release(uint32_t slot, wire::AttentionPlan& plan) {
    allocator_.free(slots_[slot].blocks);
    slots_[slot] = {};
    if (rng_.next_below(2) == 0) plan.released_slots.push_back(slot);
  }

  void add(uint32_t slot, wire::AttentionPlan& plan) {
    Slot& state = slots_[slot];
    const auto most =
        static_cast<uint32_t>(config_.max_blocks_per_sequence * config_.kv.block_size);
    const auto some = static_cast<uint32_t>(1 + rng_.next_below(6));
    if (state.num_tokens + some > most) release(slot, plan);
    wire::SequenceEntry entry = {.slot = slot,
                                 .first_position = state.num_tokens,
                                 .num_tokens = some,
                                 .starts = state.num_tokens == 0 ? 1U : 0U};
    state.num_tokens += some;
    const uint32_t needed =
        ceil_div(state.num_tokens, static_cast<uint32_t>(config_.kv.block_size));
    while (state.blocks.size() < needed) {
      state.blocks.push_back(*allocator_.allocate(state.blocks));
      plan.new_blocks.push_back(state.blocks.back());
      ++entry.num_new_blocks;
    }
    plan.sequences.push_back(entry);
  }

  AttentionCoreConfig config_;
  Rng rng_;
  BlockAllocator allocator_;
  std::vector<Slot> slots_;
  uint32_t last_of_order_ = 0;
};

}  // namespace lamina
