// Decoding steps of whole models on one GPU or shared by several, colocated, with random weights
// and dummy tokens, beside their bound: weights and keys read once at the bandwidth that a copy
// within the card reaches, or the products at the rate of a large one, by all GPUs at once;
// exchanges are not counted. Prints a line a point; asserts nothing.
//   lamina_bench_cuda_model [model [layers [GPUs]]]     llama-3-8b (default), llama-33b,
//                                                       llama-3-70b; 0 layers: all
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "convert/converter.h"
#include "convert/tensor_parallel.h"
#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "engine/model_program.h"
#include "kernels/linear.h"
#include "kv/block_allocator.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "worker/local_attention.h"
#include "worker/rank_group.h"

namespace lamina {
namespace {

constexpr Device kDevice = {DeviceKind::kCuda, 0};
constexpr int32_t kBlockSize = 64;
constexpr int32_t kWarmUpSteps = 3;
constexpr int32_t kSteps = 15;

struct ModelShape {
  int64_t hidden, intermediate, layers, heads, kv_heads, vocab;
};
const std::map<std::string, ModelShape> kShapes = {
    {"llama-3-8b", {4096, 14336, 32, 32, 8, 128256}},
    {"llama-33b", {6656, 17920, 60, 52, 52, 32000}},
    {"llama-3-70b", {8192, 28672, 80, 64, 8, 128256}}};

ModelConfig config_of(const ModelShape& shape, int64_t layers) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("lamina-bench-{}.json", ::getpid());
  std::ofstream(path) << fmt::format(
      R"({{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
           "hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {},
           "num_attention_heads": {}, "num_key_value_heads": {}, "vocab_size": {},
           "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
           "tie_word_embeddings": false}})",
      shape.hidden,
      shape.intermediate,
      layers,
      shape.heads,
      shape.kv_heads,
      shape.vocab);
  ModelConfig config = read_model_config(path);
  std::filesystem::remove(path);
  return config;
}

// Small random numbers in GPU memory: zeros would be computed with faster.
Buffer random_on_gpu(size_t count, StreamView stream) {
  constexpr size_t kPiece = size_t{1} << 18;
  Buffer piece(MemoryKind::kPinnedHost, kPiece * sizeof(BFloat16));
  Rng rng(1);
  for (size_t i = 0; i < kPiece; ++i) {
    reinterpret_cast<BFloat16*>(piece.data())[i] = to_bf16(0.04F * (rng.next_float() - 0.5F));
  }
  Buffer memory(MemoryKind::kCuda, count * sizeof(BFloat16));
  for (size_t begin = 0; begin < count; begin += kPiece) {
    const size_t part = std::min(kPiece, count - begin);
    throw_if_error(copy(
        memory.data() + begin * sizeof(BFloat16), piece.data(), part * sizeof(BFloat16), stream));
  }
  throw_if_error(synchronize(stream));
  return memory;
}

class RandomWeights final : public WeightStore {
 public:
  RandomWeights(const Graph& graph, StreamView stream) {
    use_device_of(stream);
    for (const Node& node : graph.nodes()) {
      if (node.kind != OpKind::kWeight || weights_.contains(node.name)) continue;
      const Shape& shape = node.type.row_shape;
      Weight& weight = weights_[node.name];
      weight.memory = random_on_gpu(static_cast<size_t>(shape.num_elements()), stream);
      weight.view = {weight.memory.data(), node.type.dtype, shape};
      bytes_ += weight.memory.size_bytes();
    }
  }
  [[nodiscard]] TensorView get(std::string_view name) const override {
    return weights_.at(std::string(name)).view;
  }
  [[nodiscard]] std::optional<PackedMatrix> find_packed(std::string_view /*name*/) const override {
    return std::nullopt;
  }
  [[nodiscard]] uint64_t resident_bytes() const override { return bytes_; }
  [[nodiscard]] uint64_t fingerprint() const override { return 0; }

 private:
  struct Weight {
    Buffer memory;
    TensorView view;
  };
  std::map<std::string, Weight> weights_;
  uint64_t bytes_ = 0;
};

double median_seconds(int32_t num_warm_ups,
                      int32_t num_calls,
                      StreamView stream,
                      const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int32_t i = 0; i < num_warm_ups + num_calls; ++i) {
    const TimePoint begin = steady_clock().now();
    body();
    throw_if_error(synchronize(stream));
    const Duration elapsed = steady_clock().now() - begin;
    if (i >= num_warm_ups) seconds.push_back(std::chrono::duration<double>(elapsed).count());
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

struct CardRates {
  double read_bytes = 0.0;  // per second: a copy's bytes, both ways
  double flops = 0.0;       // of bf16, per second
};

CardRates measure_card(StreamView stream) {
  constexpr size_t kCopied = size_t{2} << 30;
  constexpr int64_t kSide = 8192;
  const Buffer a = random_on_gpu(kCopied / 2, stream);
  const Buffer b = random_on_gpu(kCopied / 2, stream);
  const double copied = median_seconds(
      2, 9, stream, [&] { throw_if_error(copy(b.data(), a.data(), kCopied, stream)); });
  const Buffer out(MemoryKind::kCuda, kSide * kSide * sizeof(BFloat16));
  const Shape square = {kSide, kSide};
  const double multiplied = median_seconds(3, 9, stream, [&] {
    throw_if_error(kernels::linear({.x = {a.data(), DType::kBF16, square},
                                    .weight = TensorView(b.data(), DType::kBF16, square),
                                    .bias = {},
                                    .out = {out.data(), DType::kBF16, square}},
                                   stream));
  });
  return {2.0 * kCopied / copied, 2.0 * kSide * kSide * kSide / multiplied};
}

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
    for (AttentionBackend* backend : backends_) throw_if_error(backend->begin_step(0, 0, plan));
    for (int32_t slice = 0; slice < ranks_.num_slices(); ++slice) {
      throw_if_error(ranks_.run_slice(0, slice, backends_));
    }
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
           const CardRates& card,
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
  Decoder decoder(program, batch, context, streams);
  const double seconds =
      median_seconds(kWarmUpSteps, kSteps, streams.front(), [&] { decoder.step(); });
  const double products =
      std::max(work.weight_bytes / card.read_bytes, work.flop_per_token * batch / card.flops);
  const double bound = products / program.num_ranks() + kv_bytes / card.read_bytes;
  fmt::print("B {:3} S {:5}   {:8.2f} ms   bound {:8.2f} ms   {:.2f}x   {:8.0f} tokens/s\n",
             batch,
             context,
             1e3 * seconds,
             1e3 * bound,
             seconds / bound,
             batch / seconds);
  std::fflush(stdout);
}

void run(const std::string& model, int64_t layers, int32_t num_gpus) {
  const auto found = kShapes.find(model);
  if (found == kShapes.end()) throw Error(StatusCode::kNotFound, "no model " + model);
  std::vector<std::unique_ptr<GpuStream>> gpus;
  std::vector<StreamView> streams;
  for (int32_t rank = 0; rank < num_gpus; ++rank) {
    gpus.push_back(std::make_unique<GpuStream>(Device{kDevice.kind, kDevice.idx + rank}));
    streams.push_back(gpus.back()->view());
  }
  streams.front().adopt_this_thread();
  const CardRates card = measure_card(streams.front());
  fmt::print(
      "copies {:.0f} GB/s, multiplies {:.0f} TFLOP/s\n", card.read_bytes / 1e9, card.flops / 1e12);
  const int64_t num_layers = layers > 0 ? layers : found->second.layers;
  const Graph graph = build_graph(config_of(found->second, num_layers), DType::kBF16);
  ModelProgram program{.ranks = {}, .block_size = kBlockSize};
  double weight_bytes = 0.0;
  for (int32_t rank = 0; rank < num_gpus; ++rank) {
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced = convert_model(shard_graph(graph, rank, num_gpus)).sliced;
    shard.weights =
        std::make_unique<RandomWeights>(shard.sliced.graph, streams[static_cast<size_t>(rank)]);
    weight_bytes += static_cast<double>(shard.weights->resident_bytes());
  }
  fmt::print(
      "{}, {} layers, {:.1f} GB on {} GPUs\n", model, num_layers, weight_bytes / 1e9, num_gpus);
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
}  // namespace lamina

int main(int argc, char** argv) {
  if (lamina::cuda::num_devices() == 0) {
    fmt::print("skipped: no GPU\n");
    return 0;
  }
  try {
    lamina::run(argc > 1 ? argv[1] : "llama-3-8b",
                argc > 2 ? std::atoi(argv[2]) : 0,
                argc > 3 ? std::atoi(argv[3]) : 1);
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
