// StepTables: what attention needs of a step in a GPU's memory: bounds, block tables, slots, and
// the work that the kernels share out. Brought there once a step for all its layers, to addresses
// that never change, so that captured graphs read it. CUDA alone: on the CPU operators read the
// spans of the host. Confined to one thread, and to one stream.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "device/stream.h"

namespace lamina::kernels {

struct RaggedBatch;

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
  // Pieces of cut sequences there is room for, of value_dim * 4 bytes for each of 16 rows and KV
  // head (decoding) or 64 (more tokens). Sequences past that are not cut, which costs speed alone.
  int32_t max_partials = 1024;
};

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
  [[nodiscard]] size_t device_bytes() const;

  // For kernels/cuda.
  struct Impl;
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina::kernels
