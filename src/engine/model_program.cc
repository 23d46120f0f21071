#include "engine/model_program.h"

#include <algorithm>
#include <limits>

#include "base/checked_math.h"

namespace lamina {

int32_t ModelProgram::max_blocks_per_sequence() const {
  return ceil_div(max_model_len, block_size);
}

KvLayout ModelProgram::kv_layout(int32_t num_kv_heads) const {
  return {.num_layers = static_cast<int32_t>(sliced.attentions.size()),
          .num_kv_heads = num_kv_heads,
          .head_dim = attention().head_dim,
          .block_size = block_size,
          .dtype = kv_dtype};
}

AttentionCoreConfig ModelProgram::attention_core(int32_t num_kv_heads, int32_t num_blocks) const {
  const int32_t group = attention().num_heads / attention().num_kv_heads;
  AttentionCoreConfig config{.kv = kv_layout(num_kv_heads),
                             .num_blocks = num_blocks,
                             .num_heads = num_kv_heads * group,
                             .max_sequences = max_num_seqs,
                             .max_tokens = max_num_batched_tokens,
                             .max_blocks_per_sequence = max_blocks_per_sequence(),
                             .layers = {}};
  for (const AttentionOp& attention_op : sliced.attentions)
    config.layers.push_back(attention_op.attrs);
  return config;
}

SchedulerConfig ModelProgram::scheduler(int32_t num_blocks) const {
  return {.num_blocks = num_blocks,
          .block_size = block_size,
          .max_num_seqs = max_num_seqs,
          .max_num_batched_tokens = max_num_batched_tokens,
          .max_logits_rows = max_logits_rows};
}

StepLimits ModelProgram::step_limits() const {
  return {.max_tokens = max_num_batched_tokens, .max_logits_rows = max_logits_rows};
}

int32_t most_useful_blocks(const ModelProgram& program) {
  const int64_t blocks = int64_t{program.max_num_seqs} * program.max_blocks_per_sequence();
  return static_cast<int32_t>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
}

}  // namespace lamina
