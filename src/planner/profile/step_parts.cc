#include "planner/profile/step_parts.h"

#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "planner/profile/working_set.h"
#include "worker/no_attention.h"

namespace lamina::planner {
namespace {

constexpr int32_t kBlockSize = 64;  // as --block-size
constexpr Duration kNoExchange = std::chrono::seconds(10);

AttentionCoreConfig core_config(const AttentionPoint& point,
                                int32_t num_layers,
                                DeviceKind device) {
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
          .overlap = device == DeviceKind::kCpu,
          .layers = std::vector<wire::AttentionLayer>(static_cast<size_t>(num_layers))};
}

}  // namespace

SlicePart::SlicePart(const MeteredModel& model)
    : stream_(model.rank.stream),
      ranks_(std::span(&model.rank, 1), model.limits, /*num_micro_batches=*/1, kNoExchange) {}

Status SlicePart::run(int32_t rows) {
  LAMINA_RETURN_IF_ERROR(begin(rows));
  LAMINA_RETURN_IF_ERROR(run_slices(0, num_slices()));
  return sample();
}

Status SlicePart::begin(int32_t rows) {
  const auto count = static_cast<size_t>(rows);
  ids_.assign(count, 1);
  rows_.resize(count);
  std::iota(rows_.begin(), rows_.end(), 0);
  return ranks_.begin(0, {.token_ids = ids_, .positions = rows_, .logits_rows = rows_});
}

// A GPU's are captured as a step's are.
Status SlicePart::run_slices(int32_t begin, int32_t end) {
  const bool is_on_gpu = stream_.device().kind == DeviceKind::kCuda;
  NoAttention attention(is_on_gpu ? std::optional<uint64_t>(0) : std::nullopt);
  AttentionBackend* const backend = &attention;
  const SliceRun run = {0, begin, end};
  return ranks_.run_slices(std::span(&run, 1), std::span(&backend, 1));
}

Status SlicePart::sample() {
  const std::vector<kernels::SampleRow> greedy(rows_.size(), {.temperature = 0.0F});
  sampled_.resize(rows_.size());
  return kernels::sample(ranks_.logits(), greedy, sampled_, stream_);
}

AttentionPart::AttentionPart(const AttentionPoint& point, int32_t num_layers, StreamView stream)
    : point_(point),
      stream_(stream),
      core_(core_config(point, num_layers, stream.device().kind), stream),
      q_(dummy_values({point.sequences, point.heads, point.head_dim}, stream)),
      kv_(dummy_values({point.sequences * kBlockSize, point.kv_heads, point.head_dim}, stream)),
      out_(dummy_values({point.sequences, point.heads, point.head_dim}, stream)) {
  throw_if_error(write_cache());
}

// Memory that nobody has written to is no memory yet, and reading it would cost nothing: prompts, a
// block at a time.
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
    // What a step's tables are copied from is the next one's too.
    LAMINA_RETURN_IF_ERROR(synchronize(stream_));
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
  for (int32_t layer = 0; layer < num_layers(); ++layer) {
    LAMINA_RETURN_IF_ERROR(run_layer(layer));
  }
  return {};
}

Status AttentionPart::run_layer(int32_t layer_idx) {
  const Shape shape = {point_.sequences, point_.heads, point_.head_dim};
  const TensorView q(q_.data(), DType::kBF16, shape);
  if (core_.config().overlap) LAMINA_RETURN_IF_ERROR(core_.start(0, layer_idx, q));
  LAMINA_RETURN_IF_ERROR(append(layer_idx, point_.sequences));
  return core_.attend(0, layer_idx, q, {out_.data(), DType::kBF16, shape});
}

}  // namespace lamina::planner
