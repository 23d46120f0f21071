// Sending and receiving one message, as the threads of a block do it together: written once over
// `Memory`, which says how this side's instructions reach memory (device_memory.cuh on a GPU,
// host_memory.h on a CPU), and `Team`, the threads that take part. Nothing here waits without a
// limit.
//
// A Team has: thread, num_threads (of the block), block, num_blocks (that share the parts),
// sync() and all(bool), which both are barriers of the block's threads.
#pragma once

#include "transport/cuda_p2p/protocol.h"

// Compiled for the GPU by nvcc, where Memory is the GPU's, and for the CPU by others.
#if defined(__CUDACC__)
#define LAMINA_MESSAGE_CODE __device__
#else
#define LAMINA_MESSAGE_CODE
#endif

namespace lamina::cuda_p2p {

// Chunks, or lines, that a thread has on their way at once: latency is hidden by them, registers
// bound them.
inline constexpr uint32_t kMoveBatch = 4;
inline constexpr uint32_t kLinesBatch = 4;

// A wait's limits: the failure of another wait of the stream, the host's word, and time. The first
// is near, and every thread looks there once in a while. The host's word is far away: thousands of
// threads that ask for it slow each other down. So of threads that wait side by side one looks at
// the clock, which starts then, and of those one asks the host; when it fails, the others see that.
template <typename Memory>
class Patience {
 public:
  LAMINA_MESSAGE_CODE Patience(const StepView& step, Stamp awaited)
      : step_(step), awaited_(awaited) {}

  // After a look that found nothing but `seen`: whether to look again.
  LAMINA_MESSAGE_CODE bool lasts(uint64_t seen) {
    Memory::pause(looks_);
    // Before the branches, which threads that have looked more or less often take apart.
    const bool leads = Memory::is_leader();
    ++looks_;
    if (looks_ % Memory::kLooksPerFailure != 0) [[likely]]
      return true;
    if (Memory::load_relaxed(&step_.state->failed) != 0) [[unlikely]]
      return false;
    if (!leads || looks_ % Memory::kLooksPerLimits != 0) [[likely]]
      return true;
    return is_within_limits(seen);
  }

  // Ends all waits of the stream; the first to come here says why. False.
  LAMINA_MESSAGE_CODE bool fail(WaitError error, uint64_t seen) {
    if (!Memory::claim(&step_.state->failed)) return false;
    Memory::store_relaxed(&step_.control->awaited, awaited_);
    Memory::store_relaxed(&step_.control->seen, seen);
    Memory::store_release(&step_.control->error, static_cast<uint64_t>(error));
    return false;
  }

 private:
  LAMINA_MESSAGE_CODE bool is_within_limits(uint64_t seen) {
    const uint64_t now_ns = Memory::now_ns();
    if (begin_ns_ == 0) begin_ns_ = now_ns;
    if (now_ns - begin_ns_ > step_.max_wait_ns) return fail(WaitError::kTimedOut, seen);
    if (!asks_host(now_ns) || Memory::load_relaxed(&step_.control->abort) == 0) return true;
    return fail(WaitError::kAborted, seen);
  }

  // One of all that wait asks, and nobody again for a while. Where all ask, they wait for their
  // answers, and the peer for them: so it asks, too, and both go on like that.
  LAMINA_MESSAGE_CODE bool asks_host(uint64_t now_ns) {
    const uint64_t asked_ns = Memory::load_relaxed(&step_.state->asked_ns);
    return now_ns >= asked_ns + Memory::kAskIntervalNs &&
           Memory::replace(&step_.state->asked_ns, asked_ns, now_ns);
  }

  const StepView& step_;
  Stamp awaited_;
  uint32_t looks_ = 0;
  uint64_t begin_ns_ = 0;
};

// A message's Source fills in unit `i` of it, a Chunk or a HalfChunk: source(i, unit). A Sink takes
// it: sink(i, unit).

// This thread's chunks of a part, in batches: what load(i, chunk) fills in goes to store(i, chunk)
// once all loads of its batch are under way.
template <typename Team, typename Load, typename Store>
LAMINA_MESSAGE_CODE void move_part(
    const Team& team, const Plan& plan, uint32_t part, const Load& load, const Store& store) {
  const uint32_t end = plan.part_end(part);
  const uint32_t step = kMoveBatch * team.num_threads;
  for (uint32_t first = plan.part_begin(part) + team.thread; first < end; first += step) {
    Chunk batch[kMoveBatch];
    for (uint32_t b = 0; b < kMoveBatch; ++b) {
      const uint32_t i = first + b * team.num_threads;
      if (i < end) load(i, batch[b]);
    }
    for (uint32_t b = 0; b < kMoveBatch; ++b) {
      const uint32_t i = first + b * team.num_threads;
      if (i < end) store(i, batch[b]);
    }
  }
}

// --- Lines ---------------------------------------------------------------------------------------

// Neighbouring threads have neighbouring lines, so that what a warp stores at once is one packet.

// Line `line` of a message: its size, then its halves of chunks.
template <typename Source>
LAMINA_MESSAGE_CODE HalfChunk content_of(uint32_t line, const Plan& plan, const Source& source) {
  HalfChunk half{{plan.num_chunks, 0}};
  if (line > 0) source(line - 1, half);
  return half;
}

// Marks anew what the message does not reach.
template <typename Memory>
LAMINA_MESSAGE_CODE void refresh_lines(const SlotView& slot, const Plan& plan, Stamp stamp) {
  const uint32_t chunk = refreshed_chunk(stamp, slot.num_line_chunks);
  if (chunk < plan.num_chunks) return;
  for (uint32_t i = 0; i < kLinesOfChunk; ++i) {
    Memory::store_line(slot.lines_of(chunk) + i, pack_line({}, mark_of(stamp)));
  }
}

// Part `part` of a message, by all threads of the block.
template <typename Memory, typename Team, typename Source>
LAMINA_MESSAGE_CODE void send_lines(const Team& team,
                                    const SlotView& slot,
                                    const Plan& plan,
                                    uint32_t part,
                                    Stamp stamp,
                                    const Source& source) {
  const uint32_t mark = mark_of(stamp);
  const uint32_t end = plan.part_end_line(part);
  const uint32_t step = kLinesBatch * team.num_threads;
  for (uint32_t first = plan.part_first_line(part) + team.thread; first < end; first += step) {
    HalfChunk batch[kLinesBatch];
    for (uint32_t b = 0; b < kLinesBatch; ++b) {
      const uint32_t line = first + b * team.num_threads;
      if (line < end) batch[b] = content_of(line, plan, source);
    }
    for (uint32_t b = 0; b < kLinesBatch; ++b) {
      const uint32_t line = first + b * team.num_threads;
      if (line < end) Memory::store_line(slot.lines + line, pack_line(batch[b], mark));
    }
  }
  if (part == 0 && team.thread == team.num_threads - 1) refresh_lines<Memory>(slot, plan, stamp);
}

// Whether the message that has come is as long as the one that is awaited.
template <typename Memory>
LAMINA_MESSAGE_CODE bool has_size(uint64_t num_chunks,
                                  const Plan& plan,
                                  Patience<Memory>& patience) {
  if (num_chunks == plan.num_chunks) [[likely]]
    return true;
  return patience.fail(WaitError::kWrongSize, num_chunks);
}

// The size that a message in lines begins with.
template <typename Memory>
LAMINA_MESSAGE_CODE bool check_lines_size(const SlotView& slot,
                                          const Plan& plan,
                                          Stamp stamp,
                                          Patience<Memory>& patience) {
  Line line = Memory::load_line(slot.lines);
  while (!has_mark(line, mark_of(stamp))) {
    if (!patience.lasts(line.halves[0])) return false;
    line = Memory::load_line(slot.lines);
  }
  return has_size(static_cast<uint32_t>(line.halves[0]), plan, patience);
}

// Some lines of a message: first, first + stride, ... below `end`, as many as are asked for before
// one is looked at.
struct LinesBatch {
  uint32_t first = 0;
  uint32_t stride = 0;
  uint32_t end = 0;

  [[nodiscard]] LAMINA_MESSAGE_CODE uint32_t line(uint32_t b) const { return first + b * stride; }
  // There is a first.
  [[nodiscard]] LAMINA_MESSAGE_CODE bool has(uint32_t b) const { return b == 0 || line(b) < end; }
};

// Halves to sink(i, half), once all are there.
template <uint32_t kBatch, typename Memory, typename Sink>
LAMINA_MESSAGE_CODE bool receive_batch(const SlotView& slot,
                                       const Plan& plan,
                                       const LinesBatch& batch,
                                       uint32_t mark,
                                       Patience<Memory>& patience,
                                       const Sink& sink) {
  Line lines[kBatch];
  while (true) {
    for (uint32_t b = 0; b < kBatch; ++b) {
      if (batch.has(b)) lines[b] = Memory::load_line(slot.lines + batch.line(b));
    }
    bool all_marked = true;
    for (uint32_t b = 0; b < kBatch; ++b) {
      all_marked = all_marked && (!batch.has(b) || has_mark(lines[b], mark));
    }
    if (all_marked) break;
    if (!patience.lasts(lines[0].halves[0])) [[unlikely]]
      return false;
  }
  const bool has_size_line = batch.first == 0;
  if (has_size_line && !has_size(unpack_line(lines[0]).words[0], plan, patience)) [[unlikely]]
    return false;
  for (uint32_t b = has_size_line ? 1 : 0; b < kBatch; ++b) {
    if (batch.has(b)) sink(batch.line(b) - 1, unpack_line(lines[b]));
  }
  return true;
}

// This thread's lines of part `part`.
template <typename Memory, typename Team, typename Sink>
LAMINA_MESSAGE_CODE bool receive_lines(const Team& team,
                                       const SlotView& slot,
                                       const Plan& plan,
                                       uint32_t part,
                                       Stamp stamp,
                                       Patience<Memory>& patience,
                                       const Sink& sink) {
  LinesBatch batch = {.first = plan.part_first_line(part) + team.thread,
                      .stride = team.num_threads,
                      .end = plan.part_end_line(part)};
  for (; batch.first < batch.end; batch.first += kLinesBatch * team.num_threads) {
    if (!receive_batch<kLinesBatch>(slot, plan, batch, mark_of(stamp), patience, sink))
      return false;
  }
  return true;
}

// --- A line for each thread ----------------------------------------------------------------------

// A small message's time is that of its instructions, which a GPU fetches anew after each wait: so
// where threads and blocks suffice, kernels send and receive by these alone.
constexpr bool has_thread_per_line(const Plan& plan, uint32_t num_blocks, uint32_t num_threads) {
  return plan.form == Form::kLines && plan.num_parts <= num_blocks &&
         plan.part_units() <= num_threads;
}

// send_message() by threads that have a line each at most.
template <typename Memory, typename Team, typename Source>
LAMINA_MESSAGE_CODE void send_line(
    const Team& team, const SlotView& slot, const Plan& plan, Stamp stamp, const Source& source) {
  const uint32_t line = plan.part_first_line(team.block) + team.thread;
  if (line < plan.part_end_line(team.block)) {
    const HalfChunk half = content_of(line, plan, source);
    Memory::store_line(slot.lines + line, pack_line(half, mark_of(stamp)));
  }
  const bool is_last = team.block == 0 && team.thread == team.num_threads - 1;
  if (is_last) refresh_lines<Memory>(slot, plan, stamp);
}

// receive_message() by threads that have a line each at most.
template <typename Memory, typename Team, typename Sink>
LAMINA_MESSAGE_CODE bool receive_line(const Team& team,
                                      const SlotView& slot,
                                      const Plan& plan,
                                      Stamp stamp,
                                      const StepView& step,
                                      const Sink& sink) {
  const LinesBatch own = {.first = plan.part_first_line(team.block) + team.thread,
                          .stride = 0,
                          .end = plan.part_end_line(team.block)};
  Patience<Memory> patience(step, stamp);
  return team.all(own.first >= own.end ||
                  receive_batch<1>(slot, plan, own, mark_of(stamp), patience, sink));
}

// --- Pushed messages -----------------------------------------------------------------------------

// Whether this block is the last of the message's to come here. Of each its thread 0, after a
// barrier. Leaves zero behind, before whatever the last block releases.
template <typename Memory, typename Team>
LAMINA_MESSAGE_CODE bool stores_last(const Team& team, const Plan& plan, uint64_t* num_stored) {
  const uint32_t num_blocks = team.num_blocks < plan.num_parts ? team.num_blocks : plan.num_parts;
  if (num_blocks == 1) return true;
  if (Memory::count_up(num_stored) != num_blocks) return false;
  Memory::store_relaxed(num_stored, 0);
  return true;
}

// One release for all blocks: a GPU's fences of the system wait for each other, a microsecond each.
// Causality is transitive: a block's stores are before its barrier, that before thread 0's count,
// which releases, each count before the last block's, which acquires, and that before the release
// that the receiver acquires.
template <typename Memory, typename Team, typename Source>
LAMINA_MESSAGE_CODE void push_message(const Team& team,
                                      const SlotView& slot,
                                      const Plan& plan,
                                      Stamp stamp,
                                      uint64_t* num_stored,
                                      const Source& source) {
  if (team.block >= plan.num_parts) return;
  // First, so that the fence has no longer to wait for it than for the bytes.
  if (team.block == 0 && team.thread == 0) {
    Memory::store_relaxed(&slot.words->num_chunks, plan.num_chunks);
  }
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    move_part(team, plan, part, source, [&](uint32_t i, const Chunk& chunk) {
      Memory::store_chunk(slot.payload + i, chunk);
    });
  }
  team.sync();
  if (team.thread != 0 || !stores_last<Memory>(team, plan, num_stored)) return;
  Memory::store_release(&slot.words->released, stamp);
}

// By one thread; others may read the message after a barrier with it.
template <typename Memory>
LAMINA_MESSAGE_CODE bool wait_for_release(const SlotView& slot,
                                          Stamp stamp,
                                          Patience<Memory>& patience) {
  Stamp seen = Memory::load_acquire(&slot.words->released);
  while (seen < stamp) {
    if (!patience.lasts(seen)) return false;
    seen = Memory::load_acquire(&slot.words->released);
  }
  return true;
}

// The size of the message that has come, to the one thread that checks it; to others what it
// ought to be.
template <typename Memory, typename Team>
LAMINA_MESSAGE_CODE uint64_t pushed_chunks(const Team& team,
                                           const SlotView& slot,
                                           const Plan& plan) {
  const bool checks = team.block == 0 && team.thread == 0;
  return checks ? Memory::load_relaxed(&slot.words->num_chunks) : plan.num_chunks;
}

// A pushed message is there, for all threads of the block.
template <typename Memory, typename Team>
LAMINA_MESSAGE_CODE bool wait_for_pushed(
    const Team& team, const SlotView& slot, const Plan& plan, Stamp stamp, const StepView& step) {
  Patience<Memory> patience(step, stamp);
  const bool is_there = team.thread != 0 || wait_for_release(slot, stamp, patience);
  return team.all(is_there && has_size(pushed_chunks<Memory>(team, slot, plan), plan, patience));
}

// This block's parts of the message. Its size is on the way together with them, not before.
template <typename Memory, typename Team, typename Sink>
LAMINA_MESSAGE_CODE bool receive_pushed(const Team& team,
                                        const SlotView& slot,
                                        const Plan& plan,
                                        Stamp stamp,
                                        Patience<Memory>& patience,
                                        const Sink& sink) {
  if (team.block >= plan.num_parts) return true;
  if (!team.all(team.thread != 0 || wait_for_release(slot, stamp, patience))) return false;
  const uint64_t num_chunks = pushed_chunks<Memory>(team, slot, plan);
  const auto load = [&](uint32_t i, Chunk& chunk) { chunk = Memory::load_chunk(slot.payload + i); };
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    move_part(team, plan, part, load, sink);
  }
  return team.all(has_size(num_chunks, plan, patience));
}

// --- Messages ------------------------------------------------------------------------------------

// This block's parts of a message. The slot is free: the reply to what it held has been received.
// `num_stored` is zero, in memory of the sender's own that all blocks reach, and of this message
// alone until it is released; unused by one block that sends all of it.
template <typename Memory, typename Team, typename Source>
LAMINA_MESSAGE_CODE void send_message(const Team& team,
                                      const SlotView& slot,
                                      const Plan& plan,
                                      Stamp stamp,
                                      uint64_t* num_stored,
                                      const Source& source) {
  if (plan.form == Form::kPushed) {
    push_message<Memory>(team, slot, plan, stamp, num_stored, source);
    return;
  }
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    send_lines<Memory>(team, slot, plan, part, stamp, source);
  }
}

// This block's parts of a message, of lines each as it comes. False, the same for all threads of
// the block, if the wait ended without it: the step has failed, and the sink may have had some
// chunks. The block's threads meet after the last of its parts.
template <typename Memory, typename Team, typename Sink>
LAMINA_MESSAGE_CODE bool receive_message(const Team& team,
                                         const SlotView& slot,
                                         const Plan& plan,
                                         Stamp stamp,
                                         const StepView& step,
                                         const Sink& sink) {
  Patience<Memory> patience(step, stamp);
  if (plan.form == Form::kPushed) return receive_pushed(team, slot, plan, stamp, patience, sink);
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    if (!team.all(receive_lines(team, slot, plan, part, stamp, patience, sink))) return false;
  }
  return true;
}

}  // namespace lamina::cuda_p2p
