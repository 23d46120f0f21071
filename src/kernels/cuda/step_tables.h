// StepTables as the CUDA kernels see them: where everything lies on the device.
#pragma once

#include <array>
#include <vector>

#include "device/buffer.h"
#include "device/cuda/stream.h"
#include "device/upload.h"
#include "kernels/cuda/attention/attention_rest.cuh"
#include "kernels/cuda/attention/attention_schedule.h"
#include "kernels/step_tables.h"

namespace lamina::kernels {

// Elements of one kind: their place in the buffer, and how many the current step has.
template <typename T>
struct StepArray {
  size_t offset = 0;
  int32_t capacity = 0;
  int32_t size = 0;
};

// The items of one width and window.
struct StepItems {
  StepArray<cuda::AttentionItem> items;
  StepArray<cuda::AttentionItem> merges;
  StepArray<int32_t> counts;  // of items and of merges, for the device
  int32_t merged_rows = 0;    // of a merge at most
};

struct StepTables::Impl {
  struct Window {
    int32_t window = 0;
    StepItems narrow;
    StepItems wide;
  };
  // Of a width: what items leave for merges.
  struct Workspace {
    Buffer outs;
    Buffer lses;
  };

  Impl(const StepTablesLimits& wanted, StreamView stream);

  template <typename T>
  [[nodiscard]] T* device(const StepArray<T>& array) const {
    return reinterpret_cast<T*>(device_memory.data() + array.offset);
  }
  template <typename T>
  [[nodiscard]] std::span<T> staged(const StepArray<T>& array) const {
    return {reinterpret_cast<T*>(staging[turn].data() + array.offset),
            static_cast<size_t>(array.capacity)};
  }
  // Of `window`; null if it is not among the limits' windows.
  [[nodiscard]] const Window* find(int32_t window) const;

  StepTablesLimits limits;
  int64_t max_blocks = 0;            // of the current step's tables
  StepArray<int32_t> num_sequences;  // one
  StepArray<int32_t> query_begin;
  StepArray<int32_t> context_len;
  StepArray<int32_t> block_tables;
  StepArray<int64_t> slot_mapping;
  StepArray<int32_t> progress;  // see AttentionParams; zeros between launches
  // The current step's attention is split: windows have what kCached does, kRest meets new_tokens.
  // In other steps kRest does all of it.
  bool is_split = false;
  StepArray<cuda::NewToken> new_tokens;
  StepArray<int32_t> num_new_tokens;  // one
  std::vector<Window> windows;
  Workspace narrow;
  Workspace wide;

  Buffer device_memory;
  // Two, in turn: the copy of a step may still be under way when the next one is prepared.
  std::array<Buffer, 2> staging;
  std::array<lamina::cuda::Event, 2> copied;
  size_t turn = 0;
  std::vector<UploadPiece> pieces;  // of the step
  std::vector<int64_t> padded_slots;
  std::vector<cuda::NewToken> found_tokens;
  cuda::AttentionSchedule schedule;
};

}  // namespace lamina::kernels
