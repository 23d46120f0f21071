#include "random_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "convert/converter.h"
#include "convert/tensor_parallel.h"
#include "model/builder.h"
#include "model/model_files.h"

namespace lamina::bench {
namespace {

struct ModelShape {
  int64_t hidden, intermediate, layers, heads, kv_heads, vocab;
};

ModelShape find_shape(const std::string& name) {
  static const std::map<std::string, ModelShape> kShapes = {
      {"llama-3-8b", {4096, 14336, 32, 32, 8, 128256}},
      {"llama-33b", {6656, 17920, 60, 52, 52, 32000}},
      {"llama-3-70b", {8192, 28672, 80, 64, 8, 128256}},
      {"qwen2.5-32b", {5120, 27648, 64, 40, 8, 152064}}};  // without the biases of q, k and v
  const auto found = kShapes.find(name);
  if (found == kShapes.end()) throw Error(StatusCode::kNotFound, "no model " + name);
  return found->second;
}

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

}  // namespace

ModelConfig llama_config(const std::string& name, int64_t num_layers) {
  const ModelShape shape = find_shape(name);
  return config_of(shape, num_layers > 0 ? num_layers : shape.layers);
}

SlicedModel llama_model(const std::string& name,
                        int64_t num_layers,
                        int32_t rank,
                        int32_t num_ranks) {
  const Graph graph = build_graph(llama_config(name, num_layers), DType::kBF16);
  RewriteOptions rewrites;
  rewrites.rates.launch_s = 30e-6;  // as the program has it on GPUs: q, k and v are one product
  return convert_model(shard_graph(graph, rank, num_ranks), rewrites).sliced;
}

Buffer random_numbers(size_t count, StreamView stream) {
  constexpr size_t kPiece = size_t{1} << 18;
  Buffer piece(staging_of(stream.device().kind), kPiece * sizeof(BFloat16));
  Rng rng(1);
  for (size_t i = 0; i < kPiece; ++i) {
    reinterpret_cast<BFloat16*>(piece.data())[i] = to_bf16(0.04F * (rng.next_float() - 0.5F));
  }
  Buffer memory(memory_of(stream.device().kind), count * sizeof(BFloat16));
  for (size_t begin = 0; begin < count; begin += kPiece) {
    const size_t part = std::min(kPiece, count - begin);
    throw_if_error(copy(
        memory.data() + begin * sizeof(BFloat16), piece.data(), part * sizeof(BFloat16), stream));
  }
  throw_if_error(synchronize(stream));
  return memory;
}

RandomWeights::RandomWeights(const Graph& graph, StreamView stream) {
  use_device_of(stream);
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kWeight || weights_.contains(node.name)) continue;
    const Shape& shape = node.type.row_shape;
    Weight& weight = weights_[node.name];
    weight.memory = random_numbers(static_cast<size_t>(shape.num_elements()), stream);
    weight.view = {weight.memory.data(), node.type.dtype, shape};
    bytes_ += weight.memory.size_bytes();
  }
}

TensorView RandomWeights::get(std::string_view name) const {
  return weights_.find(name)->second.view;
}

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

}  // namespace lamina::bench
