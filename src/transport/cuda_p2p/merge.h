// Merging the partials of several attention workers as they come: each element of the output is
// folded over its sources in their order, so that its bits do not depend on who was first. Written
// over `Memory` as message.h is.
//
// A partial is one message: out [rows, D] f32, then lse [rows] f32, natural log, of the rows
// (token, head) of all tokens and of the source's heads. A row of lse = -inf has no keys.
#pragma once

#include <cmath>

#include "transport/cuda_p2p/message.h"

namespace lamina::cuda_p2p {

// Where a partial comes from, and which query heads it is of.
struct PartialSource {
  SlotView slot;
  Plan plan;
  uint32_t use = 0;  // the message is the step's base + use
  uint32_t head_begin = 0;
  uint32_t head_end = 0;

  [[nodiscard]] LAMINA_HOST_DEVICE bool has_head(uint32_t head) const {
    return head_begin <= head && head < head_end;
  }
};

// Neighbouring elements of a row, as many as a chunk holds, and the row's lse.
inline constexpr uint32_t kPartialFloats = sizeof(Chunk) / sizeof(float);
struct PartialChunk {
  float out[kPartialFloats] = {};
  float lse = -INFINITY;
};

// Which elements of a source: its own row, and the chunk within the row.
struct PartialPlace {
  uint32_t row = 0;
  uint32_t chunk = 0;
  uint32_t row_chunks = 0;
  uint32_t num_rows = 0;

  [[nodiscard]] LAMINA_HOST_DEVICE uint32_t chunk_idx() const { return row * row_chunks + chunk; }
  [[nodiscard]] LAMINA_HOST_DEVICE uint32_t lse_word() const {
    return num_rows * row_chunks * 4 + row;
  }
};

LAMINA_MESSAGE_CODE inline float as_float(uint32_t word) {
  float value;
  static_assert(sizeof(value) == sizeof(word));
  __builtin_memcpy(&value, &word, sizeof(value));
  return value;
}

LAMINA_MESSAGE_CODE inline Chunk join(const HalfChunk& first, const HalfChunk& second) {
  return {{first.words[0], first.words[1], second.words[0], second.words[1]}};
}

LAMINA_MESSAGE_CODE inline PartialChunk make_partial(const Chunk& chunk, uint32_t lse) {
  PartialChunk partial;
  for (int i = 0; i < 4; ++i) partial.out[i] = as_float(chunk.words[i]);
  partial.lse = as_float(lse);
  return partial;
}

// Waits for these elements alone.
template <typename Memory>
LAMINA_MESSAGE_CODE bool take_from_lines(const SlotView& slot,
                                         const PartialPlace& place,
                                         uint32_t mark,
                                         Patience<Memory>& patience,
                                         PartialChunk& partial) {
  const Line* const from = slot.lines_of(place.chunk_idx());
  const uint64_t* const from_lse = slot.marked_word(place.lse_word());
  while (true) {
    const Line lines[] = {Memory::load_line(from), Memory::load_line(from + 1)};
    const uint64_t lse = Memory::load_relaxed(from_lse);
    if (has_mark(lines[0], mark) && has_mark(lines[1], mark) && has_mark(lse, mark)) {
      const Chunk chunk = join(unpack_line(lines[0]), unpack_line(lines[1]));
      partial = make_partial(chunk, static_cast<uint32_t>(lse));
      return true;
    }
    if (!patience.lasts(lse)) return false;
  }
}

// Of a message that is there.
template <typename Memory>
LAMINA_MESSAGE_CODE PartialChunk take_pushed(const SlotView& slot, const PartialPlace& place) {
  const uint32_t lse_word = place.lse_word();
  const Chunk chunk = Memory::load_chunk(slot.payload + place.chunk_idx());
  const Chunk lses = Memory::load_chunk(slot.payload + lse_word / 4);
  return make_partial(chunk, lses.words[lse_word % 4]);
}

// kernels/attention.h's merge_partials, of one chunk. The identity on either side leaves the
// other's bits untouched.
LAMINA_MESSAGE_CODE inline void fold(PartialChunk& into, const PartialChunk& from) {
  if (from.lse == -INFINITY) return;
  if (into.lse == -INFINITY) {
    into = from;
    return;
  }
  const float top = fmaxf(into.lse, from.lse);
  const float into_weight = expf(into.lse - top);
  const float from_weight = expf(from.lse - top);
  const float total = into_weight + from_weight;
  for (int i = 0; i < 4; ++i) {
    into.out[i] = into.out[i] * (into_weight / total) + from.out[i] * (from_weight / total);
  }
  into.lse = top + logf(total);
}

// The rows that are merged: chunk `chunk` of head `head` of token `token` is element
// (token * num_heads + head) * row_chunks + chunk. Heads are counted from the first that is merged.
struct MergeShape {
  uint32_t num_tokens = 0;
  uint32_t num_heads = 0;
  uint32_t row_chunks = 0;
  // [num_heads] scores of a key without a value, which no source has counted; or none. Memory of
  // who merges.
  const float* sinks = nullptr;

  [[nodiscard]] LAMINA_HOST_DEVICE uint32_t num_elements() const {
    return num_tokens * num_heads * row_chunks;
  }
  [[nodiscard]] LAMINA_HOST_DEVICE uint32_t head_of(uint32_t element) const {
    return element / row_chunks % num_heads;
  }
  // Where the element begins in a matrix of floats with `stride` of them between tokens.
  [[nodiscard]] LAMINA_HOST_DEVICE size_t place_of(uint32_t element, uint32_t stride) const {
    const uint32_t token_chunks = num_heads * row_chunks;
    return size_t{element / token_chunks} * stride +
           size_t{element % token_chunks} * kPartialFloats;
  }
};

// Of an element that no source has been folded into. Past the last there is none.
LAMINA_MESSAGE_CODE inline PartialChunk unmerged(const MergeShape& shape, uint32_t element) {
  PartialChunk chunk;
  if (shape.sinks != nullptr) chunk.lse = shape.sinks[shape.head_of(element)];
  return chunk;
}

// Folds one source's share of an element into `merged`. False if the wait for it ended.
template <typename Memory>
LAMINA_MESSAGE_CODE bool fold_source(const PartialSource& source,
                                     const MergeShape& shape,
                                     uint32_t element,
                                     Stamp stamp,
                                     Patience<Memory>& patience,
                                     PartialChunk& merged) {
  const uint32_t head = shape.head_of(element);
  if (!source.has_head(head)) return true;
  const uint32_t token = element / shape.row_chunks / shape.num_heads;
  const uint32_t num_heads = source.head_end - source.head_begin;
  const PartialPlace place = {.row = token * num_heads + head - source.head_begin,
                              .chunk = element % shape.row_chunks,
                              .row_chunks = shape.row_chunks,
                              .num_rows = shape.num_tokens * num_heads};
  PartialChunk partial;
  if (source.plan.form == Form::kPushed) {
    partial = take_pushed<Memory>(source.slot, place);
  } else if (!take_from_lines(source.slot, place, mark_of(stamp), patience, partial)) {
    return false;
  }
  fold(merged, partial);
  return true;
}

// Before the first element of a source: a pushed one is waited for as a whole, of lines the size
// alone, by one thread, since each element waits for itself. By all threads of the block.
template <typename Memory, typename Team>
LAMINA_MESSAGE_CODE bool begin_source(const Team& team,
                                      const PartialSource& source,
                                      Stamp stamp,
                                      const StepView& step) {
  if (source.plan.form == Form::kPushed) {
    return wait_for_pushed<Memory>(team, source.slot, source.plan, stamp, step);
  }
  Patience<Memory> patience(step, stamp);
  const bool checks = team.block == 0 && team.thread == team.num_threads - 1;
  return !checks || check_lines_size(source.slot, source.plan, stamp, patience);
}

// This block's elements, merged over `num_sources`, to store(element, merged); nothing of heads
// that no source has. False, the same for all threads of the block, if a wait ended without its
// message.
template <typename Memory, typename Team, typename Store>
LAMINA_MESSAGE_CODE bool merge_messages(const Team& team,
                                        const PartialSource* sources,
                                        uint32_t num_sources,
                                        const MergeShape& shape,
                                        const StepView& step,
                                        Stamp base,
                                        const Store& store) {
  const uint32_t end = shape.num_elements();
  const uint32_t stride = team.num_blocks * team.num_threads;
  // Rounds of the whole block, which meets at the beginning of each source.
  for (uint32_t first = team.block * team.num_threads; first < end; first += stride) {
    const uint32_t element = first + team.thread;
    const bool is_first_round = first == team.block * team.num_threads;
    bool has_source = false;
    PartialChunk merged = unmerged(shape, element);
    for (uint32_t s = 0; s < num_sources; ++s) {
      has_source |= sources[s].has_head(shape.head_of(element));
      const Stamp stamp = base + sources[s].use;
      const bool has_begun = !is_first_round || begin_source<Memory>(team, sources[s], stamp, step);
      Patience<Memory> patience(step, stamp);
      const bool is_folded =
          has_begun &&
          (element >= end || fold_source(sources[s], shape, element, stamp, patience, merged));
      if (!team.all(is_folded)) return false;
    }
    if (element < end && has_source) store(element, merged);
  }
  return true;
}

}  // namespace lamina::cuda_p2p
