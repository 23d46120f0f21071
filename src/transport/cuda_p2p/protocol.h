// The protocol of messages that a GPU sends and receives by itself: how a message is cut, marked
// and laid out in the receiver's memory. Plain arithmetic on plain values, the same on GPU and
// host, used by message.h; moves nothing. docs/adr/0031-gpu-initiated-transport.md gives reasons.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define LAMINA_HOST_DEVICE __host__ __device__
#else
#define LAMINA_HOST_DEVICE
#endif

namespace lamina::cuda_p2p {

// A message is whole chunks.
struct alignas(16) Chunk {
  uint32_t words[4];

  friend bool operator==(const Chunk&, const Chunk&) = default;
};
// What a line carries of it.
struct alignas(8) HalfChunk {
  uint32_t words[2];

  friend bool operator==(const HalfChunk&, const HalfChunk&) = default;
};
inline constexpr uint32_t kLinesOfChunk = 2;
// Two words of a message, each with its mark above it in the same 64 bits, which memory moves as
// one. Whoever sees the mark has the word: no fence, no flag, and no order among lines.
struct alignas(16) Line {
  uint64_t halves[2];
};

// --- Sequence numbers ----------------------------------------------------------------------------

// An epoch and a count of messages within it. Stamps of one slot only grow, so that what an earlier
// epoch left is older than anything that is awaited. 0 is no message.
using Stamp = uint64_t;
inline constexpr int kCountBits = 40;

LAMINA_HOST_DEVICE constexpr Stamp make_stamp(uint32_t epoch, uint64_t count) {
  return uint64_t{epoch} << kCountBits | count;
}
LAMINA_HOST_DEVICE constexpr uint32_t epoch_of(Stamp stamp) {
  return static_cast<uint32_t>(stamp >> kCountBits);
}

// What tells a stamp's words from everything older: eight bits of the epoch, never zero as fresh
// memory is, and 24 bits of the count. refreshed_chunk() keeps older marks from living so long that
// they come round again.
LAMINA_HOST_DEVICE constexpr uint32_t mark_of(Stamp stamp) {
  return (epoch_of(stamp) % 255 + 1) << 24 | (static_cast<uint32_t>(stamp) & 0xFFFFFF);
}
LAMINA_HOST_DEVICE constexpr uint64_t mark_word(uint32_t word, uint32_t mark) {
  return uint64_t{mark} << 32 | word;
}
LAMINA_HOST_DEVICE constexpr bool has_mark(uint64_t half, uint32_t mark) {
  return static_cast<uint32_t>(half >> 32) == mark;
}
LAMINA_HOST_DEVICE constexpr bool has_mark(const Line& line, uint32_t mark) {
  return has_mark(line.halves[0], mark) && has_mark(line.halves[1], mark);
}

LAMINA_HOST_DEVICE constexpr Line pack_line(const HalfChunk& half, uint32_t mark) {
  return {mark_word(half.words[0], mark), mark_word(half.words[1], mark)};
}
LAMINA_HOST_DEVICE constexpr HalfChunk unpack_line(const Line& line) {
  return {{static_cast<uint32_t>(line.halves[0]), static_cast<uint32_t>(line.halves[1])}};
}

// The chunk whose lines a message marks anew where it does not reach that far itself. Over as many
// messages as a slot has chunks, times a few, all of them come up, whatever the distance between
// the stamps of one slot (Fibonacci hashing): no mark grows old.
LAMINA_HOST_DEVICE constexpr uint32_t refreshed_chunk(Stamp stamp, uint32_t num_chunks) {
  const uint64_t hash = stamp * 0x9E3779B97F4A7C15U;
  return static_cast<uint32_t>((hash >> 32) * num_chunks >> 32);
}

// --- Messages ------------------------------------------------------------------------------------

// How a message travels.
//   kLines   every word marked: twice the bytes, and the receiver has them in one trip
//   kPushed  the bytes, then a release word: a second trip, after a fence
enum class Form : uint32_t { kLines, kPushed };

inline constexpr uint32_t kMaxParts = 128;
// Messages of one launch.
inline constexpr uint32_t kMaxPeers = 16;

// What both sides of a link have to agree on. Sizes in bytes of payload, multiples of 16.
// `lamina bench transport --parts` measures what they should be.
struct Limits {
  uint32_t lines_bytes = 64 << 10;      // messages up to this size travel as lines
  uint32_t lines_part_bytes = 2 << 10;  // a block's share; a message has kMaxParts at most
  uint32_t pushed_part_bytes = 16 << 10;

  friend bool operator==(const Limits&, const Limits&) = default;
};

// A part is what one block sends, and what one receives.
struct Plan {
  Form form = Form::kLines;
  uint32_t num_chunks = 0;
  uint32_t num_parts = 0;
  uint32_t part_chunks = 0;

  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t part_begin(uint32_t part) const {
    return part * part_chunks;
  }
  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t part_end(uint32_t part) const {
    const uint32_t end = part_begin(part) + part_chunks;
    return end < num_chunks ? end : num_chunks;
  }
  // Of the slot's lines: the first part has the size, too.
  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t part_first_line(uint32_t part) const {
    return part == 0 ? 0 : 1 + kLinesOfChunk * part_begin(part);
  }
  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t part_end_line(uint32_t part) const {
    return 1 + kLinesOfChunk * part_end(part);
  }
  // What the threads of a part's block move, each one at a time.
  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t part_units() const {
    return form == Form::kLines ? 1 + kLinesOfChunk * part_chunks : part_chunks;
  }
};

LAMINA_HOST_DEVICE constexpr uint32_t divide_up(uint32_t value, uint32_t by) {
  return (value + by - 1) / by;
}
LAMINA_HOST_DEVICE constexpr uint32_t chunks_of(uint32_t size_bytes) {
  return divide_up(size_bytes, sizeof(Chunk));
}

// Of a message of 1 byte or more, rounded up to whole chunks.
LAMINA_HOST_DEVICE constexpr Plan make_plan(uint32_t size_bytes, const Limits& limits) {
  Plan plan;
  plan.form = size_bytes <= limits.lines_bytes ? Form::kLines : Form::kPushed;
  plan.num_chunks = chunks_of(size_bytes);
  const uint32_t wanted =
      chunks_of(plan.form == Form::kLines ? limits.lines_part_bytes : limits.pushed_part_bytes);
  const uint32_t least = divide_up(plan.num_chunks, kMaxParts);
  plan.part_chunks = wanted > least ? wanted : least;
  plan.num_parts = divide_up(plan.num_chunks, plan.part_chunks);
  return plan;
}

// The receiver's own cut, into `max_parts` at most: a message is there or not as a whole, or line
// by line, whoever sent which of it.
LAMINA_HOST_DEVICE constexpr Plan recut(Plan plan, uint32_t max_parts) {
  if (plan.num_parts <= max_parts) return plan;
  plan.part_chunks = divide_up(plan.num_chunks, max_parts);
  plan.num_parts = divide_up(plan.num_chunks, plan.part_chunks);
  return plan;
}

// --- Slots ---------------------------------------------------------------------------------------

// Of the pushed message that a slot holds. Written by the sender alone.
struct alignas(128) SlotWords {
  Stamp released;       // after all that belongs to the message
  uint64_t num_chunks;  // of the message
};

// A slot of the receiver's memory, as either side has it mapped; a kernel's argument. Lines and
// pushed bytes have memory of their own: no payload may ever be taken for marks.
struct SlotView {
  SlotWords* words = nullptr;
  Line* lines = nullptr;  // the size of the message first, then its chunks
  Chunk* payload = nullptr;
  uint32_t num_chunks = 0;
  uint32_t num_line_chunks = 0;

  [[nodiscard]] LAMINA_HOST_DEVICE Line* lines_of(uint32_t chunk) const {
    return lines + 1 + size_t{kLinesOfChunk} * chunk;
  }
  // The marked word `idx` of the message.
  [[nodiscard]] LAMINA_HOST_DEVICE const uint64_t* marked_word(uint32_t idx) const {
    return &lines[1 + idx / 2].halves[idx % 2];
  }
};

// --- Steps ---------------------------------------------------------------------------------------

// What ended a wait other than the message.
enum class WaitError : uint32_t { kNone, kTimedOut, kAborted, kWrongSize };

// What the kernels of one stream share, in memory of their own GPU.
struct alignas(64) StepState {
  Stamp base = 0;       // messages of this step are base + 1, base + 2, ...
  uint64_t failed = 0;  // 1: a wait has ended in an error; later ones end at once, nothing is sent
  uint64_t asked_ns = 0;  // when one that waits last looked for the host's word
  // Blocks that have stored their parts of a launch's pushed message 0, 1, ..., until all have.
  // The stream's kernels share them: the next one begins when they are zero again.
  alignas(64) uint64_t num_stored[kMaxPeers] = {};
};

// What they share with their host, in host memory that both have mapped.
struct StepControl {
  uint64_t abort;  // not 0, by the host: waits end
  uint64_t error;  // WaitError, by the first wait that fails, after what follows
  Stamp awaited;
  uint64_t seen;  // of kWrongSize the chunks that came, else a word that was looked at last
};

// A kernel's argument; both outlive what is enqueued.
struct StepView {
  StepState* state = nullptr;
  StepControl* control = nullptr;
  uint64_t max_wait_ns = 0;
};

// Slots used in turn by messages 1, 2, ... of a stream of requests, each of which is answered: a
// slot is free again once the reply to what it held has come.
struct Rotation {
  uint32_t num_slots = 1;

  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint32_t slot_of(uint64_t message) const {
    return static_cast<uint32_t>(message % num_slots);
  }
  // The message whose reply has to be there before `message` is sent; 0: none.
  [[nodiscard]] LAMINA_HOST_DEVICE constexpr uint64_t reply_before(uint64_t message) const {
    return message > num_slots ? message - num_slots : 0;
  }
};

}  // namespace lamina::cuda_p2p
