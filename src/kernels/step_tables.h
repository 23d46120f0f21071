// StepTables: what attention needs of a step in a GPU's memory: bounds, block tables, slots, and
// the work that the kernels share out. Brought there once a step for all its layers, to addresses
// that never change, so that captured graphs read it. CUDA alone: on the CPU operators read the
// spans of the host. Confined to one thread, and to one stream.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "device/stream.h"

namespace lamina::kernels {

struct RaggedBatch;

// Decoding steps on a GPU have this many rows, the next of few sizes, so that few captured graphs
// serve them all: those past the step's own tokens hold anything, have no keys and no queries.
inline constexpr int64_t kMaxPaddedTokens = 512;
[[nodiscard]] constexpr int64_t padded_tokens(int64_t num_tokens) {
  if (num_tokens <= 1 || num_tokens > kMaxPaddedTokens) return num_tokens;
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(num_tokens - 1)));
  const int64_t step = num_tokens <= 8 ? below : std::max<int64_t>(8, below / 8);
  return (num_tokens + step - 1) / step * step;
}
static_assert(padded_tokens(3) == 4 && padded_tokens(9) == 16 && padded_tokens(130) == 144);

struct StepTablesLimits {
  int32_t max_sequences = 0;
  int32_t max_tokens = 0;  // query tokens of a step
  int32_t max_blocks = 0;  // of a sequence: RaggedBatch::max_blocks
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t value_dim = 0;
  bool latent = false;     // values lie in the keys
  int32_t num_blocks = 0;  // of the cache
  int32_t block_size = 0;
  std::vector<int32_t> windows = {0};  // that layers have, each once; 0: none
  bool in_phases = false;  // attention is called as kCached and kRest, and never as kWhole
  // Pieces of cut sequences there is room for, of value_dim * 4 bytes for each of 16 rows and KV
  // head (decoding) or 64 (more tokens). Sequences past that are not cut, which costs speed alone.
  int32_t max_partials = 1024;
};

// Entries [begin, end) of RaggedBatch::block_tables, its rows one after the other.
struct TableRange {
  size_t begin = 0;
  size_t end = 0;
};
// A batch of which some entries alone are brought has rows of a multiple of this.
inline constexpr int32_t kTableRowUnit = 4;

class StepTables {
 public:
  // Throws Error kResourceExhausted if memory is short, kUnimplemented for a CPU or without CUDA.
  StepTables(const StepTablesLimits& limits, StreamView stream);
  StepTables(const StepTables&) = delete;
  StepTables& operator=(const StepTables&) = delete;
  ~StepTables();

  // Enqueues the copy of a step. Waits only if the step before the last one is not there yet.
  // kInvalidArgument, with nothing enqueued, past the limits or for a batch or slot that attention
  // or append would refuse on the CPU. The spans may go once this returns.
  [[nodiscard]] Status update(const RaggedBatch& batch,
                              std::span<const int64_t> slot_mapping,
                              StreamView stream);
  // The same where those entries of the block tables alone differ from what the step before
  // brought, or were never brought: others are neither looked at nor copied.
  [[nodiscard]] Status update(const RaggedBatch& batch,
                              std::span<const TableRange> changed,
                              std::span<const int64_t> slot_mapping,
                              StreamView stream);
  [[nodiscard]] size_t device_bytes() const;
  // What tells the launches of attention's kernels in this step from those in another of as many
  // padded tokens; none if there are more windows than it has bits for.
  [[nodiscard]] std::optional<uint64_t> launch_shape() const;

  // For kernels/cuda.
  struct Impl;
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina::kernels
