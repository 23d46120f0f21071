#include "transport/cuda_p2p/slots.h"

#include <algorithm>

#include "base/checked_math.h"

namespace lamina::cuda_p2p {
namespace {

// A line of the GPU's caches, so that slots do not disturb each other.
constexpr size_t kAlignment = alignof(SlotWords);

struct Offsets {
  size_t lines = 0;
  size_t payload = 0;
  size_t end = 0;
  uint32_t num_chunks = 0;
  uint32_t num_line_chunks = 0;
};

// Within a slot, behind its words.
Offsets offsets_of(uint32_t capacity_bytes, const Limits& limits) {
  Offsets offsets;
  offsets.num_chunks = chunks_of(capacity_bytes);
  offsets.num_line_chunks = chunks_of(std::min(capacity_bytes, limits.lines_bytes));
  offsets.lines = sizeof(SlotWords);
  const size_t num_lines = 1 + size_t{kLinesOfChunk} * offsets.num_line_chunks;
  offsets.payload = round_up(offsets.lines + num_lines * sizeof(Line), kAlignment);
  offsets.end = round_up(offsets.payload + offsets.num_chunks * sizeof(Chunk), kAlignment);
  return offsets;
}

}  // namespace

size_t region_bytes(std::span<const uint32_t> capacities, const Limits& limits) {
  size_t total = 0;
  for (const uint32_t capacity : capacities) total += offsets_of(capacity, limits).end;
  return total;
}

std::vector<SlotView> slot_views(std::byte* memory,
                                 std::span<const uint32_t> capacities,
                                 const Limits& limits) {
  std::vector<SlotView> views;
  for (const uint32_t capacity : capacities) {
    const Offsets offsets = offsets_of(capacity, limits);
    views.push_back({.words = reinterpret_cast<SlotWords*>(memory),
                     .lines = reinterpret_cast<Line*>(memory + offsets.lines),
                     .payload = reinterpret_cast<Chunk*>(memory + offsets.payload),
                     .num_chunks = offsets.num_chunks,
                     .num_line_chunks = offsets.num_line_chunks});
    memory += offsets.end;
  }
  return views;
}

}  // namespace lamina::cuda_p2p
