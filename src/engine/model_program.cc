#include "engine/model_program.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/checked_math.h"
#include "convert/report/conversion_report.h"

namespace lamina {
namespace {

std::vector<float> values_of(std::span<const float> per_head, const HeadRange& heads) {
  if (per_head.empty()) return {};
  const auto part =
      per_head.subspan(static_cast<size_t>(heads.begin), static_cast<size_t>(heads.count()));
  return {part.begin(), part.end()};
}

std::vector<float> as_f32(const TensorView& weight) {
  std::vector<float> values;
  for (int64_t i = 0; i < weight.shape[0]; ++i) {
    switch (weight.dtype) {
      case DType::kF32:
        values.push_back(*weight.row<float>(i));
        break;
      case DType::kF16:
        values.push_back(to_f32(*weight.row<Float16>(i)));
        break;
      case DType::kBF16:
        values.push_back(to_f32(*weight.row<BFloat16>(i)));
        break;
      case DType::kI32:
      case DType::kU8:
      case DType::kI8:
      case DType::kF8E4M3:
        LAMINA_CHECK(false, "a sink of a dtype that is no float");
    }
  }
  return values;
}

// What a worker with query heads [begin, end) of a rank knows of a layer.
wire::AttentionLayer attention_layer(const ModelShard& shard,
                                     const AttentionOp& op,
                                     const HeadRange& heads) {
  wire::AttentionLayer layer{.scale = op.attrs.scale,
                             .window = op.attrs.window,
                             .soft_cap = op.attrs.soft_cap,
                             .alibi_slopes = values_of(op.attrs.alibi_slopes, heads)};
  if (op.sinks) {
    const std::string& name = shard.sliced.graph.node(*op.sinks).name;
    layer.sinks = values_of(as_f32(shard.weights->get_on_host(name)), heads);
  }
  return layer;
}

}  // namespace

int32_t ModelProgram::max_blocks_per_sequence() const {
  return ceil_div(max_model_len, block_size);
}

KvLayout ModelProgram::kv_layout(int32_t num_kv_heads) const {
  return {.num_layers = num_layers(),
          .num_kv_heads = num_kv_heads,
          .head_dim = attention().head_dim,
          .value_dim = attention().value_dim,
          .latent = attention().latent,
          .block_size = block_size,
          .dtype = kv_dtype};
}

AttentionCoreConfig ModelProgram::attention_core(int32_t rank,
                                                 const HeadRange& kv_heads,
                                                 int32_t num_blocks) const {
  const int32_t group = attention().num_heads / attention().num_kv_heads;
  const HeadRange heads = {kv_heads.begin * group, kv_heads.end * group};
  AttentionCoreConfig config{.kv = kv_layout(kv_heads.count()),
                             .q_dtype = dtype,
                             .num_blocks = num_blocks,
                             .num_heads = heads.count(),
                             .max_sequences = max_num_seqs,
                             .max_tokens = max_num_batched_tokens,
                             .max_blocks_per_sequence = max_blocks_per_sequence(),
                             .num_micro_batches = rotation.num_micro_batches,
                             .layers = {}};
  const ModelShard& shard = ranks[static_cast<size_t>(rank)];
  for (const AttentionOp& op : shard.sliced.attentions) {
    config.layers.push_back(attention_layer(shard, op, heads));
  }
  return config;
}

std::vector<std::vector<float>> ModelProgram::sinks(int32_t rank) const {
  const std::vector<wire::AttentionLayer> layers =
      attention_core(rank, {0, attention().num_kv_heads}, 1).layers;
  std::vector<std::vector<float>> sinks;
  bool has_sinks = false;
  for (const wire::AttentionLayer& layer : layers) {
    sinks.push_back(layer.sinks);
    has_sinks |= !layer.sinks.empty();
  }
  return has_sinks ? sinks : std::vector<std::vector<float>>();
}

std::vector<RankModel> ModelProgram::rank_models(std::span<const StreamView> streams,
                                                 size_t replica) const {
  LAMINA_CHECK_EQ(streams.size(), ranks.size());
  std::vector<RankModel> models;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const ModelShard& shard = ranks[rank];
    const bool has_own = replica > 0 && !shard.copies.empty();
    const WeightStore& weights = has_own ? *shard.copies[replica - 1] : *shard.weights;
    models.push_back({&shard.sliced, &weights, streams[rank]});
  }
  return models;
}

std::optional<PackedFormat> ModelProgram::packed_format() const {
  const ModelShard& rank = ranks.front();
  std::optional<PackedFormat> found;
  for (const Node& node : rank.sliced.graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    const std::optional<PackedMatrix> matrix = rank.weights->find_packed(node.name);
    if (matrix && is_quantized(matrix->format)) return matrix->format;
    if (matrix) found = matrix->format;
  }
  return found;
}

DecodeWork ModelProgram::decode_work() const {
  DecodeWork work;
  for (const ModelShard& rank : ranks) {
    const SliceWork of_rank = total_work(rank.sliced);
    work.weight_bytes += static_cast<double>(of_rank.weight_bytes_read);
    work.flop_per_token += static_cast<double>(of_rank.flop);
    for (const Node& node : rank.sliced.graph.nodes()) {
      if (node.kind != OpKind::kWeight) continue;
      const std::optional<PackedMatrix> matrix = rank.weights->find_packed(node.name);
      if (!matrix) continue;
      work.weight_bytes +=
          static_cast<double>(matrix->size_bytes()) - static_cast<double>(node.type.row_bytes());
    }
  }
  const KvLayout layout = kv_layout(num_kv_heads());
  work.kv_bytes_per_position =
      static_cast<double>(layout.block_bytes()) / static_cast<double>(layout.block_size);
  return work;
}

SchedulerConfig ModelProgram::scheduler() const {
  return {.blocks = {},
          .block_size = block_size,
          .num_micro_batches = rotation.num_micro_batches,
          .max_num_seqs = max_num_seqs,
          .max_num_batched_tokens = max_num_batched_tokens,
          .max_logits_rows = max_logits_rows};
}

StepLimits ModelProgram::step_limits() const {
  return {.max_tokens = max_num_batched_tokens, .max_logits_rows = max_logits_rows};
}

StepCodecLimits ModelProgram::step_codec_limits(int32_t num_blocks) const {
  const Graph& graph = ranks.front().sliced.graph;
  return {.max_micro_batches = rotation.num_micro_batches,
          .num_replicas = rotation.num_replicas,
          .max_sequences = max_num_seqs,
          .max_tokens = max_num_batched_tokens,
          .max_logits_rows = max_logits_rows,
          .max_blocks = num_blocks,
          .vocab_size = static_cast<int32_t>(graph.type(graph.output()).row_shape[0]),
          .max_positions = max_model_len};
}

int32_t most_useful_blocks(const ModelProgram& program) {
  const int64_t blocks = int64_t{program.max_num_seqs} * program.max_blocks_per_sequence();
  return static_cast<int32_t>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
}

}  // namespace lamina
