#include "step_parts.h"

#include <array>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "device/gpu_graph.h"
#include "random_model.h"
#include "transport/measure/trip_times.h"
#include "worker/attention_core.h"
#include "worker/no_attention.h"
#include "worker/rank_group.h"

namespace lamina::bench {
namespace {

constexpr int kSteps = 20;

class AttentionAlone {
 public:
  // Of one worker of so many that share the heads.
  AttentionAlone(const ModelProgram& program, StreamView stream, Point point, int32_t num_workers)
      : stream_(stream),
        point_(point),
        core_(core_config(program, point, num_workers), stream),
        heads_(share_of(program.attention(), num_workers)),
        q_(rows_of(heads_.num_heads * heads_.head_dim)),
        kv_(rows_of(heads_.num_kv_heads * heads_.head_dim)),
        out_(rows_of(heads_.num_heads * heads_.value_dim)) {
    throw_if_error(core_.begin_step(plan(program.block_size)));
  }

  double measure() {
    throw_if_error(enqueue());
    throw_if_error(synchronize(stream_));
    const GpuGraph graph = GpuGraph::capture(stream_, [&] { return enqueue(); }).value_or_throw();
    return median_seconds(3, kSteps, stream_, [&] { throw_if_error(graph.launch(stream_)); });
  }

 private:
  static AttentionAttrs share_of(AttentionAttrs heads, int32_t num_workers) {
    heads.num_heads /= num_workers;
    heads.num_kv_heads /= num_workers;
    return heads;
  }

  static AttentionCoreConfig core_config(const ModelProgram& program,
                                         Point point,
                                         int32_t num_workers) {
    const int32_t blocks = ceil_div(point.context, program.block_size) * point.batch;
    AttentionCoreConfig config =
        program.attention_core(0, {0, program.num_kv_heads() / num_workers}, blocks);
    config.overlap = false;
    config.num_micro_batches = 1;
    return config;
  }

  [[nodiscard]] Buffer rows_of(int32_t width) const {
    return {MemoryKind::kCuda, static_cast<size_t>(point_.batch) * static_cast<size_t>(width) * 2};
  }

  [[nodiscard]] wire::AttentionPlan plan(int32_t block_size) const {
    const auto blocks = static_cast<uint32_t>(ceil_div(point_.context, block_size));
    wire::AttentionPlan plan{.step = 1};
    for (int32_t i = 0; i < point_.batch; ++i) {
      plan.sequences.push_back({.slot = static_cast<uint32_t>(i),
                                .first_position = static_cast<uint32_t>(point_.context) - 1,
                                .num_tokens = 1,
                                .num_new_blocks = blocks,
                                .starts = 1});
    }
    for (uint32_t block = 0; block < blocks * static_cast<uint32_t>(point_.batch); ++block) {
      plan.new_blocks.push_back(static_cast<int32_t>(block));
    }
    return plan;
  }

  Status enqueue() {
    const auto view = [&](const Buffer& memory, int32_t heads, int32_t dim) {
      return TensorView(memory.data(), DType::kBF16, {point_.batch, heads, dim});
    };
    const TensorView kv = view(kv_, heads_.num_kv_heads, heads_.head_dim);
    for (int32_t layer = 0; layer < core_.config().kv.num_layers; ++layer) {
      LAMINA_RETURN_IF_ERROR(core_.append(0, layer, kv, kv));
      LAMINA_RETURN_IF_ERROR(core_.attend(0,
                                          layer,
                                          view(q_, heads_.num_heads, heads_.head_dim),
                                          view(out_, heads_.num_heads, heads_.value_dim)));
    }
    return {};
  }

  StreamView stream_;
  Point point_;
  AttentionCore core_;
  AttentionAttrs heads_;
  Buffer q_;
  Buffer kv_;
  Buffer out_;
};

}  // namespace

double measure_slices(const ModelProgram& program, StreamView stream, int32_t batch) {
  RankGroup ranks(program.rank_models(std::array{stream}),
                  program.step_limits(),
                  /*num_micro_batches=*/1,
                  std::chrono::seconds(10));
  NoAttention attention(/*launch_shape=*/0);
  AttentionBackend* const backend = &attention;
  const std::vector<int32_t> ids(static_cast<size_t>(batch), 1);
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < batch; ++i) rows.push_back(i);
  return median_seconds(3, kSteps, stream, [&] {
    throw_if_error(ranks.begin(0, {.token_ids = ids, .positions = rows, .logits_rows = rows}));
    const SliceRun run = {0, 0, ranks.num_slices()};
    throw_if_error(ranks.run_slices(std::span(&run, 1), std::span(&backend, 1)));
  });
}

double measure_attention(const ModelProgram& program,
                         StreamView stream,
                         Point point,
                         int32_t num_workers) {
  return AttentionAlone(program, stream, point, num_workers).measure();
}

double measure_wire(measure::DeviceTrips& trips, const AttentionAttrs& heads, int32_t batch) {
  const int32_t to_attention = (heads.num_heads + heads.num_kv_heads) * heads.head_dim +
                               heads.num_kv_heads * heads.value_dim;
  double seconds = 0;
  for (const int32_t width : {to_attention, heads.num_heads * heads.value_dim}) {
    const auto size_bytes = static_cast<uint32_t>(batch * width) * 2;
    const bool as_lines = size_bytes <= cuda_p2p::Limits{}.lines_bytes;
    const measure::TripKind kind = {
        .drive = measure::Drive::kGraph,
        .form = as_lines ? cuda_p2p::Form::kLines : cuda_p2p::Form::kPushed};
    const auto times_us =
        trips.times_us(kind, size_bytes, std::chrono::milliseconds(200)).value_or_throw();
    seconds += 0.5e-6 * measure::summarise(times_us, size_bytes).p50_us;
  }
  return seconds;
}

}  // namespace lamina::bench
