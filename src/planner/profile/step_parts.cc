#include "planner/profile/step_parts.h"

#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "kernels/sample.h"
#include "worker/no_attention.h"

namespace lamina::planner {
namespace {

constexpr int32_t kBlockSize = 64;  // as --block-size
constexpr Duration kNoExchange = std::chrono::seconds(10);

AttentionCoreConfig core_config(const AttentionPoint& point, int32_t num_layers) {
  const int32_t blocks_of_one = ceil_div(point.context, kBlockSize);
  return {.kv = {.num_layers = num_layers,
                 .num_kv_heads = point.kv_heads,
                 .head_dim = point.head_dim,
                 .value_dim = point.head_dim,
                 .block_size = kBlockSize},
          .num_blocks = blocks_of_one * point.sequences,
          .num_heads = point.heads,
          .max_sequences = point.sequences,
          .max_tokens = kBlockSize * point.sequences,
          .max_blocks_per_sequence = blocks_of_one,
          .layers = std::vector<wire::AttentionLayer>(static_cast<size_t>(num_layers))};
}

Buffer rows_of(int32_t rows, int32_t heads, int32_t head_dim) {
  Buffer memory(MemoryKind::kHost,
                static_cast<size_t>(rows) * static_cast<size_t>(heads * head_dim) *
                    dtype_bytes(DType::kBF16));
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{0});
  return memory;
}

}  // namespace

SlicePart::SlicePart(const MeteredModel& model)
    : stream_(model.rank.stream),
      ranks_(std::span(&model.rank, 1), model.limits, /*num_micro_batches=*/1, kNoExchange) {}

Status SlicePart::run(int32_t rows) {
  const auto count = static_cast<size_t>(rows);
  const std::vector<int32_t> ids(count, 1);
  std::vector<int32_t> rows_of_logits(count);
  std::iota(rows_of_logits.begin(), rows_of_logits.end(), 0);
  LAMINA_RETURN_IF_ERROR(ranks_.begin(
      0, {.token_ids = ids, .positions = rows_of_logits, .logits_rows = rows_of_logits}));
  NoAttention attention;
  AttentionBackend* const backend = &attention;
  const SliceRun all = {0, 0, ranks_.num_slices()};
  LAMINA_RETURN_IF_ERROR(ranks_.run_slices(std::span(&all, 1), std::span(&backend, 1)));
  const std::vector<kernels::SampleRow> greedy(count, {.temperature = 0.0F});
  std::vector<kernels::SampledToken> sampled(count);
  return kernels::sample(ranks_.logits(), greedy, sampled, stream_);
}

AttentionPart::AttentionPart(const AttentionPoint& point, int32_t num_layers, StreamView stream)
    : point_(point),
      core_(core_config(point, num_layers), stream),
      q_(rows_of(point.sequences, point.heads, point.head_dim)),
      kv_(rows_of(point.sequences * kBlockSize, point.kv_heads, point.head_dim)),
      out_(rows_of(point.sequences, point.heads, point.head_dim)) {
  throw_if_error(write_cache());
}

// Memory that nobody has written to is no memory yet, and reading it would cost nothing: prompts of
// zeros, a block at a time.
Status AttentionPart::write_cache() {
  const int32_t blocks_of_one = core_.config().max_blocks_per_sequence;
  for (int32_t block = 0; block < blocks_of_one; ++block) {
    wire::AttentionPlan plan{
        .step = ++step_, .sequences = {}, .released_slots = {}, .new_blocks = {}};
    const int32_t first = block * kBlockSize;
    const int32_t tokens = std::min(kBlockSize, point_.context - first);
    for (int32_t i = 0; i < point_.sequences; ++i) {
      plan.sequences.push_back({.slot = static_cast<uint32_t>(i),
                                .first_position = static_cast<uint32_t>(first),
                                .num_tokens = static_cast<uint32_t>(tokens),
                                .num_new_blocks = 1,
                                .starts = block == 0 ? 1U : 0U});
      plan.new_blocks.push_back(i * blocks_of_one + block);
    }
    LAMINA_RETURN_IF_ERROR(core_.begin_step(plan));
    for (int32_t layer = 0; layer < core_.config().kv.num_layers; ++layer) {
      LAMINA_RETURN_IF_ERROR(append(layer, tokens * point_.sequences));
    }
  }
  return core_.begin_step(decoding_plan());
}

// The last position anew, in each step.
wire::AttentionPlan AttentionPart::decoding_plan() {
  wire::AttentionPlan plan{
      .step = ++step_, .sequences = {}, .released_slots = {}, .new_blocks = {}};
  for (int32_t i = 0; i < point_.sequences; ++i) {
    plan.sequences.push_back({.slot = static_cast<uint32_t>(i),
                              .first_position = static_cast<uint32_t>(point_.context) - 1,
                              .num_tokens = 1});
  }
  return plan;
}

Status AttentionPart::append(int32_t layer_idx, int32_t num_tokens) {
  const TensorView kv(kv_.data(), DType::kBF16, {num_tokens, point_.kv_heads, point_.head_dim});
  return core_.append(0, layer_idx, kv, kv);
}

Status AttentionPart::run() {
  // q comes first, and k and v when attention has met the cached keys.
  const Shape shape = {point_.sequences, point_.heads, point_.head_dim};
  for (int32_t layer = 0; layer < core_.config().kv.num_layers; ++layer) {
    const TensorView q(q_.data(), DType::kBF16, shape);
    LAMINA_RETURN_IF_ERROR(core_.start(0, layer, q));
    LAMINA_RETURN_IF_ERROR(append(layer, point_.sequences));
    LAMINA_RETURN_IF_ERROR(core_.attend(0, layer, q, {out_.data(), DType::kBF16, shape}));
  }
  return {};
}

}  // namespace lamina::planner
