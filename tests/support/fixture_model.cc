#include "support/fixture_model.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "convert/converter.h"
#include "convert/tensor_parallel.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "model/safetensors/safetensors_file.h"
#include "support/paths.h"

namespace lamina::test {

Golden read_golden(const std::filesystem::path& folder) {
  const nlohmann::json text = nlohmann::json::parse(std::ifstream(folder / "golden.json"));
  Golden golden{.prompts = text.at("prompts"), .greedy = text.at("greedy"), .logits = {}};
  std::map<std::string, StoredTensor> tensors;
  for (StoredTensor& tensor : open_safetensors(folder / "golden.safetensors"))
    tensors.emplace(tensor.name, tensor);
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    const StoredTensor& tensor = tensors.at("logits_" + std::to_string(i));
    std::vector<float> values(tensor.size_bytes / sizeof(float));
    std::memcpy(values.data(), tensor.data(), tensor.size_bytes);
    golden.logits.push_back(std::move(values));
  }
  return golden;
}

ModelProgram load_fixture(const std::filesystem::path& folder,
                          int32_t num_ranks,
                          int32_t max_tokens,
                          const RewriteOptions& rewrites,
                          const Rotation& rotation,
                          DType dtype) {
  const auto files = open_model(folder);
  const Graph graph = build_graph(files->config(), dtype);
  ModelProgram program{.ranks = {},
                       .dtype = dtype,
                       .kv_dtype = dtype,
                       .block_size = kFixtureBlockSize,
                       .max_model_len = kFixtureBlockSize * kFixtureBlocksPerSequence,
                       .max_num_seqs = kFixtureSequences,
                       .max_num_batched_tokens = max_tokens,
                       .max_logits_rows = max_tokens,
                       .rotation = rotation};
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced = convert_model(shard_graph(graph, rank, num_ranks), rewrites).sliced;
    shard.weights = files->load_weights(shard.sliced.graph, {});
  }
  return program;
}

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture_path("models"))) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace lamina::test
