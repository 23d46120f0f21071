// Decoding steps of whole models on one GPU or shared by several, colocated, with random weights
// and dummy tokens, beside their bound: weights and keys read once at the best bandwidth that the
// card is measured to have, or the products at the rate of products of as many rows, by all GPUs
// at once; exchanges are not counted. Prints a line a point; asserts nothing.
//   lamina_bench_cuda_model [model [layers [GPUs]]]     llama-3-8b (default), llama-33b,
//                                                       llama-3-70b; 0 layers: all
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "engine/model_program.h"
#include "kv/block_allocator.h"
#include "random_model.h"
#include "rates.h"
#include "worker/local_attention.h"
#include "worker/rank_group.h"

namespace lamina::bench {
namespace {

constexpr Device kDevice = {DeviceKind::kCuda, 0};
constexpr int32_t kBlockSize = 64;
constexpr int32_t kWarmUpSteps = 3;
constexpr int32_t kSteps = 15;

// A model and its KV cache, decoding the same step over and over.
class Decoder {
 public:
  Decoder(const ModelProgram& program,
          int32_t batch,
          int32_t context,
          std::span<const StreamView> streams)
      : ranks_(program.rank_models(streams),
               program.step_limits(),
               /*num_micro_batches=*/1,
               std::chrono::seconds(60)),
        blocks_(num_blocks(batch, context)),
        batch_(batch),
        context_(context),
        ids_(static_cast<size_t>(batch), 1),
        positions_(static_cast<size_t>(batch), context - 1),
        rows_(static_cast<size_t>(batch)) {
    for (int32_t b = 0; b < batch; ++b) rows_[static_cast<size_t>(b)] = b;
    const HeadRange kv_heads = {0, program.attention().num_kv_heads};
    for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
      attention_.push_back(std::make_unique<LocalAttention>(
          program.attention_core(rank, kv_heads, num_blocks(batch, context)),
          streams[static_cast<size_t>(rank)]));
      backends_.push_back(attention_.back().get());
    }
  }

  static int32_t num_blocks(int32_t batch, int32_t context) {
    return batch * ((context + kBlockSize - 1) / kBlockSize);
  }

  void step() {
    StepPlan plan;
    for (int32_t b = 0; b < batch_; ++b) {
      SequenceStep sequence{.slot = b, .first_position = context_ - 1, .num_tokens = 1};
      sequence.starts = is_first_;
      for (int32_t i = 0; is_first_ && i < num_blocks(1, context_); ++i) {
        sequence.new_blocks.push_back(*blocks_.allocate(sequence.new_blocks));
      }
      plan.sequences.push_back(std::move(sequence));
    }
    is_first_ = false;
    throw_if_error(
        ranks_.begin(0, {.token_ids = ids_, .positions = positions_, .logits_rows = rows_}));
    for (AttentionBackend* backend : backends_) throw_if_error(backend->begin_step(0, {}, plan));
    throw_if_error(ranks_.run_slices(std::array{SliceRun{0, 0, ranks_.num_slices()}}, backends_));
  }

 private:
  RankGroup ranks_;
  std::vector<std::unique_ptr<LocalAttention>> attention_;  // by rank
  std::vector<AttentionBackend*> backends_;
  BlockAllocator blocks_;
  int32_t batch_;
  int32_t context_;
  bool is_first_ = true;
  std::vector<int32_t> ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> rows_;
};

void bench(ModelProgram& program,
           DeviceRates card,
           std::span<const StreamView> streams,
           int32_t batch,
           int32_t context) {
  program.max_model_len = context;
  program.max_num_seqs = batch;
  program.max_num_batched_tokens = batch;
  program.max_logits_rows = batch;
  const DecodeWork work = program.decode_work();
  const double kv_bytes = work.kv_bytes_per_position * context * batch / program.num_ranks();
  if (kv_bytes > 0.9 * static_cast<double>(cuda::memory_of(kDevice).free_bytes)) {
    fmt::print("B {:3} S {:5}   {:.1f} GB of KV do not fit\n", batch, context, kv_bytes / 1e9);
    return;
  }
  card.flop_per_s = measure_products(streams.front(), batch);
  Decoder decoder(program, batch, context, streams);
  const double seconds =
      median_seconds(kWarmUpSteps, kSteps, streams.front(), [&] { decoder.step(); });
  const double bound =
      model_bound_s(work, card, batch) / program.num_ranks() + kv_bytes / card.read_bytes_per_s;
  fmt::print(
      "B {:3} S {:5}   {:8.2f} ms   bound {:8.2f} ms   {:.2f}x   {:8.0f} tokens/s   {:3.0f} "
      "TFLOP/s\n",
      batch,
      context,
      1e3 * seconds,
      1e3 * bound,
      seconds / bound,
      batch / seconds,
      card.flop_per_s / 1e12);
  std::fflush(stdout);
}

void run(const std::string& model, int64_t layers, int32_t num_gpus) {
  std::vector<std::unique_ptr<GpuStream>> gpus;
  std::vector<StreamView> streams;
  for (int32_t rank = 0; rank < num_gpus; ++rank) {
    gpus.push_back(std::make_unique<GpuStream>(Device{kDevice.kind, kDevice.idx + rank}));
    streams.push_back(gpus.back()->view());
  }
  streams.front().adopt_this_thread();
  const DeviceRates card = measure_card(streams.front());
  fmt::print("reads {:.0f} GB/s, multiplies {:.0f} TFLOP/s\n",
             card.read_bytes_per_s / 1e9,
             card.flop_per_s / 1e12);
  ModelProgram program{.ranks = {}, .block_size = kBlockSize};
  double weight_bytes = 0.0;
  for (int32_t rank = 0; rank < num_gpus; ++rank) {
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced = llama_model(model, layers, rank, num_gpus);
    shard.weights =
        std::make_unique<RandomWeights>(shard.sliced.graph, streams[static_cast<size_t>(rank)]);
    weight_bytes += static_cast<double>(shard.weights->resident_bytes());
  }
  fmt::print("{}, {} layers, {:.1f} GB on {} GPUs\n",
             model,
             program.num_layers(),
             weight_bytes / 1e9,
             num_gpus);
  for (const auto& [batch, context] : {std::pair{1, 512},
                                       {1, 1024},
                                       {16, 1024},
                                       {16, 2048},
                                       {64, 1024},
                                       {64, 2048},
                                       {128, 1024},
                                       {256, 1024},
                                       {16, 8192},
                                       {16, 16384}}) {
    bench(program, card, streams, batch, context);
  }
}

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  if (lamina::cuda::num_devices() == 0) {
    fmt::print("skipped: no GPU\n");
    return 0;
  }
  try {
    lamina::bench::run(argc > 1 ? argv[1] : "llama-3-8b",
                       argc > 2 ? std::atoi(argv[2]) : 0,
                       argc > 3 ? std::atoi(argv[3]) : 1);
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
