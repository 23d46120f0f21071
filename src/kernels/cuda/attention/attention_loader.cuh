// The warp that copies queries, keys and values to shared memory, as many tiles ahead as there are
// stages, across the bounds of items: memory has always something to do.
#pragma once

#include "kernels/cuda/attention/attention_shared.cuh"

namespace lamina::kernels::cuda {

template <typename Traits>
class AttentionLoader {
 public:
  __device__ AttentionLoader(const AttentionParams& params, typename Traits::Shared& shared)
      : params_(params),
        shared_(shared),
        lane_(threadIdx.x % 32),
        chunk_keys_(min(params.block_size, Traits::kTileKeys)),
        chunks_(Traits::kTileKeys / chunk_keys_),
        queue_(params),
        first_(queue_.first()),
        first_block_(find_block(first_, first_chunk(first_))) {}

  // All work of this block, then the end of it. Keys of earlier steps do not wait for the kernel
  // before. What the next item needs is asked for while the tiles of the one before are copied:
  // under load, memory takes microseconds to answer.
  __device__ void run() {
    Work work = first_;
    int block = first_block_;
    int chunk = copy_early_tiles(work, block);
    wait_for_previous_kernel();
    while (!work.is_end()) {
      copy_queries(work);
      Work next;
      block = copy_tiles(work, chunk, block, next);
      chunk = first_chunk(next);
      work = next;
    }
    // Not before: the next kernel's blocks would fill the multiprocessors that are done first, and
    // share them while others are idle.
    allow_next_kernel();
    queue_.leave();
    copy_queries(work);
  }

 private:
  // How many tiles before its first one a piece is asked for, and taken. Memory answers under load
  // in about the time that a tile of kTileKeys takes.
  static constexpr int kAskAhead = 3 * cuda::kTileKeys / Traits::kTileKeys;
  static constexpr int kTakeAhead = 2 * cuda::kTileKeys / Traits::kTileKeys;

  __device__ int num_tiles(const Work& work) const {
    return (end_chunk(work) - first_chunk(work) + chunks_ - 1) / chunks_;
  }
  __device__ int first_chunk(const Work& work) const { return work.item.key_begin / chunk_keys_; }
  __device__ int end_chunk(const Work& work) const {
    return (work.item.key_end + chunk_keys_ - 1) / chunk_keys_;
  }

  // The block with this lane's chunk, of 32 from `chunk` on.
  __device__ int find_block(const Work& work, int chunk) const {
    chunk += lane_;
    if (chunk >= end_chunk(work)) return -1;
    return __ldg(params_.block_tables + work.item.sequence * params_.max_blocks +
                 chunk * chunk_keys_ / params_.block_size);
  }

  // Copies tiles of the first item that the step does not write to, as many as there are places but
  // not the item's last; returns the chunk to go on with. `block` is find_block() of the first.
  __device__ int copy_early_tiles(const Work& work, int block) {
    constexpr int kPlaces = Traits::kValuesInKeys ? 1 : 2;  // of a tile
    const int most = params_.num_stages / kPlaces;
    const int old_end = min(work.item.first_position, work.item.key_end - 1) / Traits::kTileKeys;
    const int first = first_chunk(work);
    const int end = min(first + most * chunks_, old_end * chunks_);
    int chunk = first;
    for (; chunk < end; chunk += chunks_) copy_keys_and_values(work, chunk, block, first);
    return chunk;
  }

  // The tiles from `chunk` on; `block` is find_block() of the item's first chunk. Returns the same
  // of `next`, which is asked for and taken as late as it can be without a wait: until then it may
  // go to a block that is ready sooner.
  __device__ int copy_tiles(const Work& work, int chunk, int block, Work& next) {
    const int end = end_chunk(work);
    int known = first_chunk(work);
    int next_block = -1;
    bool is_taken = false;
    for (; chunk < end; chunk += chunks_) {
      if (chunk == known + 32) {
        known = chunk;
        block = find_block(work, chunk);
      }
      copy_keys_and_values(work, chunk, block, known);
      const int left = (end - 1 - chunk) / chunks_;
      if (!is_taken && left <= kAskAhead) queue_.ask();
      if (!is_taken && left <= kTakeAhead) {
        next = queue_.take();
        is_taken = true;
        if (!next.is_end() && left + num_tiles(next) <= kAskAhead) queue_.ask();
      }
      if (left == 0) next_block = find_block(next, first_chunk(next));
    }
    return next_block;
  }

  // The tile that starts with `chunk`; each lane has the block of a chunk, the first that of
  // `known`.
  __device__ void copy_keys_and_values(const Work& work, int chunk, int block, int known) {
    const int own_chunk = chunk + lane_ % chunks_;
    const int own_block = __shfl_sync(~0U, block, own_chunk - known);
    copy_tile(params_.k_cache, params_.k_scales, work.head, own_chunk, own_block);
    if constexpr (!Traits::kValuesInKeys) {
      copy_tile(params_.v_cache, params_.v_scales, work.head, own_chunk, own_block);
    }
  }

  // Each of the first chunks_ lanes copies its chunk, which lies in `block`.
  __device__ void copy_tile(
      const void* cache, const float* scales, int head, int chunk, int block) {
    const int stage = counter_.idx;
    const bool copies = lane_ < chunks_ && block >= 0;
    const uint32_t here = __ballot_sync(~0U, copies);
    shared_.empty[stage].wait(counter_.parity ^ 1);
    counter_.advance(params_.num_stages);
    if (lane_ == 0) shared_.missing[stage] = ~here & ((1U << chunks_) - 1);
    const int64_t row =
        (static_cast<int64_t>(block) * params_.num_kv_heads + head) * params_.block_size +
        chunk * chunk_keys_ % params_.block_size;
    const int bytes = chunk_keys_ * Traits::kRowBytes;
    const int all_bytes = chunk_keys_ * (Traits::kRowBytes + Traits::kScaleBytes);
    copy(shared_.tile(stage) + lane_ % chunks_ * bytes,
         static_cast<const unsigned char*>(cache) + row * Traits::kRowBytes,
         bytes,
         copies,
         __popc(here) * all_bytes,
         shared_.full[stage],
         true,
         !Traits::kIsCoded);
    if constexpr (Traits::kIsCoded) {
      copy(reinterpret_cast<unsigned char*>(shared_.scales(stage) + lane_ % chunks_ * chunk_keys_),
           reinterpret_cast<const unsigned char*>(scales + row),
           chunk_keys_ * Traits::kScaleBytes,
           copies,
           0,
           shared_.full[stage],
           false,
           true);
    }
  }

  __device__ void copy_queries(const Work& work) {
    const int slot = query_counter_.idx;
    shared_.queries_empty[slot].wait(query_counter_.parity ^ 1);
    query_counter_.advance(Traits::kQuerySlots);
    if (lane_ == 0) shared_.loaded[slot] = work;
    constexpr int64_t kElementBytes = sizeof(typename Traits::Element);
    const auto* q = static_cast<const unsigned char*>(params_.q);
    constexpr int kRounds = (Traits::kRows + 31) / 32;
    for (int round = 0; round < kRounds; ++round) {
      const int row = round * 32 + lane_;
      const bool copies = row < work.item.num_rows;
      const QueryPlace place = query_place(params_, work, copies ? row : 0);
      // All bytes are promised in the first round.
      const int all_bytes = round == 0 ? work.item.num_rows * Traits::kQueryBytes : 0;
      copy(shared_.queries[slot][copies ? row : 0],
           q + place.token * params_.q_stride * kElementBytes + place.head * Traits::kQueryBytes,
           Traits::kQueryBytes,
           copies,
           all_bytes,
           shared_.queries_full[slot],
           round == 0,
           round == kRounds - 1);
    }
  }

  // Each lane that `copies` copies `bytes`; `full` is told of all bytes with the first round, and
  // ends its phase when all are there, with the last one.
  __device__ void copy(unsigned char* to,
                       const unsigned char* from,
                       int bytes,
                       bool copies,
                       int all_bytes,
                       Barrier& full,
                       bool is_first,
                       bool is_last) const {
#if __CUDA_ARCH__ >= 900
    if (is_first && lane_ == 0) full.arrive_and_expect(all_bytes);
    __syncwarp();
    if (copies) bulk_copy(to, from, bytes, full, Traits::kKeysPolicy);
#else
    for (uint32_t rest = __ballot_sync(~0U, copies); rest != 0; rest &= rest - 1) {
      const int source = __ffs(rest) - 1;
      auto* source_to = reinterpret_cast<unsigned char*>(
          __shfl_sync(~0U, reinterpret_cast<unsigned long long>(to), source));
      const auto* source_from = reinterpret_cast<const unsigned char*>(
          __shfl_sync(~0U, reinterpret_cast<unsigned long long>(from), source));
      for (int offset = lane_ * 16; offset < bytes; offset += 32 * 16) {
        copy_16(source_to + offset, source_from + offset);
      }
    }
    if (!is_last) return;
    full.arrive_after_copies();
    if (lane_ == 0) full.arrive();
#endif
  }

  const AttentionParams& params_;
  typename Traits::Shared& shared_;
  const int lane_;
  const int chunk_keys_;  // of what is copied at once: a block's, or a tile's where that is less
  const int chunks_;      // of a tile
  WorkQueue queue_;
  const Work first_;
  const int first_block_;  // find_block() of it
  RingCounter counter_;
  RingCounter query_counter_;
};

}  // namespace lamina::kernels::cuda
