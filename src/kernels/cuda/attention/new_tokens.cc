#include "kernels/cuda/attention/new_tokens.h"

namespace lamina::kernels::cuda {

bool has_single_tokens(std::span<const int32_t> query_begin) {
  for (size_t b = 1; b < query_begin.size(); ++b) {
    if (query_begin[b] - query_begin[b - 1] > 1) return false;
  }
  return true;
}

void find_new_tokens(const RaggedBatch& batch, int32_t block_size, std::vector<NewToken>& tokens) {
  tokens.clear();
  for (size_t b = 0; b < batch.context_len.size(); ++b) {
    if (batch.query_begin[b] == batch.query_begin[b + 1]) continue;
    const int32_t position = batch.context_len[b] - 1;
    const std::span<const int32_t> table =
        batch.block_tables.subspan(b * static_cast<size_t>(batch.max_blocks));
    const int32_t block = table[static_cast<size_t>(position / block_size)];
    const int64_t slot = int64_t{block} * block_size + position % block_size;
    tokens.push_back({.token = batch.query_begin[b],
                      .position = position,
                      .slot = block == kNoBlock ? kNoSlot : slot});
  }
}

}  // namespace lamina::kernels::cuda
