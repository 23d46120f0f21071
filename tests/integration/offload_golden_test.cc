// The fixture models against their independent goldens, with attention in 2 and 3 worker processes
// and colocated: logits of every prompt position within 1e-5 of their range, greedy ids equal, all
// prompts in one ragged batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "convert/slicer.h"
#include "kv/head_partition.h"
#include "model/builder.h"
#include "model/model_files.h"
#include "model/safetensors/safetensors_file.h"
#include "support/paths.h"
#include "support/worker_process.h"
#include "worker/local_attention.h"

namespace lamina {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr int32_t kChunk =
    24;  // prompt tokens of a sequence in a step: prompts of 33 and 100 take several
constexpr int32_t kMaxSequences = 4;
constexpr int32_t kBlocksPerSequence = 9;  // 144 tokens: 100 + 32
constexpr int32_t kMaxTokens = kMaxSequences * kChunk;

struct Golden {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<int32_t>> greedy;
  std::vector<std::vector<float>> logits;  // [prompt length, vocab] of each prompt
};

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

// A loaded fixture model.
struct Model {
  explicit Model(const std::filesystem::path& folder)
      : files(open_model(folder)),
        sliced(slice_model(build_graph(files->config(), DType::kF32))),
        weights(files->load_weights(sliced.graph, nullptr)) {}

  [[nodiscard]] AttentionCoreConfig core(int32_t num_kv_heads) const {
    const AttentionAttrs& attention = sliced.attentions[0].attrs;
    AttentionCoreConfig config{
        .kv = {.num_layers = static_cast<int32_t>(sliced.attentions.size()),
               .num_kv_heads = num_kv_heads,
               .head_dim = attention.head_dim,
               .block_size = kBlockSize,
               .dtype = DType::kF32},
        .num_blocks = kMaxSequences * kBlocksPerSequence,
        .num_heads = num_kv_heads * attention.num_heads / attention.num_kv_heads,
        .max_sequences = kMaxSequences,
        .max_tokens = kMaxTokens,
        .max_blocks_per_sequence = kBlocksPerSequence,
        .layers = {}};
    for (const AttentionOp& op : sliced.attentions) config.layers.push_back(op.attrs);
    return config;
  }

  std::unique_ptr<ModelFiles> files;
  SlicedModel sliced;
  std::unique_ptr<WeightStore> weights;
};

// Attention of a model in worker processes: forked first, connected when threads may exist.
class Offloaded {
 public:
  Offloaded(const Model& model, TransportKind kind, int32_t num_workers)
      : model_(model),
        ranges_(split_heads(model.sliced.attentions[0].attrs.num_kv_heads, num_workers)) {
    for (const HeadRange range : ranges_) {
      processes_.push_back(std::make_unique<test::WorkerProcess>(
          kind,
          AttentionWorkerConfig{
              .core = model.core(range.count()), .epoch = 1, .dtype = DType::kF32}));
    }
  }

  std::unique_ptr<RemoteAttention> connect() {
    std::vector<AttentionPeer> peers;
    for (size_t i = 0; i < ranges_.size(); ++i) {
      peers.push_back({.name = "worker " + std::to_string(i),
                       .kv_heads = ranges_[i],
                       .endpoint = processes_[i]->connect()});
    }
    const AttentionAttrs& attention = model_.sliced.attentions[0].attrs;
    return std::make_unique<RemoteAttention>(
        RemoteAttentionConfig{.epoch = 1,
                              .num_layers = static_cast<int32_t>(model_.sliced.attentions.size()),
                              .num_heads = attention.num_heads,
                              .num_kv_heads = attention.num_kv_heads,
                              .head_dim = attention.head_dim,
                              .dtype = DType::kF32,
                              .reply_timeout = std::chrono::seconds(20)},
        std::move(peers));
  }

 private:
  const Model& model_;
  std::vector<HeadRange> ranges_;
  std::vector<std::unique_ptr<test::WorkerProcess>> processes_;
};

// Runs all prompts side by side, collecting the logits of every token, then greedy ids.
class Runner {
 public:
  Runner(const Model& model, const Golden& golden, AttentionBackend& attention)
      : golden_(golden),
        attention_(attention),
        pool_(2),
        executor_(model.sliced,
                  *model.weights,
                  {.max_tokens = kMaxTokens, .max_logits_rows = kMaxTokens},
                  StreamView(pool_)),
        tokens_(golden.prompts),
        num_cached_(golden.prompts.size(), 0),
        logits_(golden.prompts.size()) {}

  void run() {
    while (std::any_of(tokens_.begin(), tokens_.end(), [&](const auto& tokens) {
      return !is_done(index_of(tokens));
    })) {
      ASSERT_NO_FATAL_FAILURE(step());
    }
  }

  [[nodiscard]] const std::vector<float>& prompt_logits(size_t idx) const { return logits_[idx]; }
  [[nodiscard]] std::vector<int32_t> generated(size_t idx) const {
    return {tokens_[idx].begin() + static_cast<ptrdiff_t>(golden_.prompts[idx].size()),
            tokens_[idx].end()};
  }

 private:
  [[nodiscard]] size_t index_of(const std::vector<int32_t>& tokens) const {
    return static_cast<size_t>(&tokens - tokens_.data());
  }
  [[nodiscard]] bool is_done(size_t idx) const {
    return tokens_[idx].size() == golden_.prompts[idx].size() + golden_.greedy[idx].size();
  }

  void step() {
    StepPlan plan;
    std::vector<int32_t> ids;
    std::vector<int32_t> positions;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (is_done(i)) continue;
      const auto count =
          std::min<int32_t>(kChunk, static_cast<int32_t>(tokens_[i].size()) - num_cached_[i]);
      SequenceStep sequence{
          .slot = static_cast<int32_t>(i), .first_position = num_cached_[i], .num_tokens = count};
      if (num_cached_[i] == 0) {
        sequence.starts = true;  // blocks of the sequences interleave
        for (int32_t block = 0; block < kBlocksPerSequence; ++block) {
          sequence.new_blocks.push_back(block * kMaxSequences + static_cast<int32_t>(i));
        }
      }
      for (int32_t position = num_cached_[i]; position < num_cached_[i] + count; ++position) {
        ids.push_back(tokens_[i][static_cast<size_t>(position)]);
        positions.push_back(position);
      }
      plan.sequences.push_back(std::move(sequence));
    }
    std::vector<int32_t> rows(ids.size());
    for (size_t row = 0; row < rows.size(); ++row) rows[row] = static_cast<int32_t>(row);
    const auto check = [](const Status& status) { ASSERT_TRUE(status.ok()) << status.to_string(); };
    ASSERT_NO_FATAL_FAILURE(
        check(executor_.begin({.token_ids = ids, .positions = positions, .logits_rows = rows})));
    ASSERT_NO_FATAL_FAILURE(check(attention_.begin_step(plan)));
    for (int32_t slice = 0; slice < executor_.num_slices(); ++slice) {
      ASSERT_NO_FATAL_FAILURE(check(executor_.run_slice(slice, attention_)));
    }
    collect(plan);
  }

  void collect(const StepPlan& plan) {
    const TensorView logits = executor_.logits();
    const int64_t vocab = logits.shape[1];
    int64_t row = 0;
    for (const SequenceStep& sequence : plan.sequences) {
      const auto idx = static_cast<size_t>(sequence.slot);
      const size_t num_missing = golden_.logits[idx].size() - logits_[idx].size();
      const auto num_wanted =
          std::min(num_missing, static_cast<size_t>(sequence.num_tokens * vocab));
      const float* values = logits.row<float>(row);
      logits_[idx].insert(logits_[idx].end(), values, values + num_wanted);
      num_cached_[idx] += sequence.num_tokens;
      row += sequence.num_tokens;
      if (num_cached_[idx] < static_cast<int32_t>(tokens_[idx].size())) continue;
      const float* last = logits.row<float>(row - 1);
      tokens_[idx].push_back(static_cast<int32_t>(std::max_element(last, last + vocab) - last));
    }
  }

  const Golden& golden_;
  AttentionBackend& attention_;
  ThreadPool pool_;
  SliceExecutor executor_;
  std::vector<std::vector<int32_t>> tokens_;
  std::vector<int32_t> num_cached_;
  std::vector<std::vector<float>> logits_;
};

// Largest error of the logits as a share of their range (max - min).
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst,
                     std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])));
  }
  return worst / (static_cast<double>(*high) - static_cast<double>(*low));
}

void expect_golden(const Model& model, const Golden& golden, AttentionBackend& attention) {
  Runner runner(model, golden, attention);
  ASSERT_NO_FATAL_FAILURE(runner.run());
  double worst = 0;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    ASSERT_EQ(runner.prompt_logits(i).size(), golden.logits[i].size());
    worst = std::max(worst, relative_error(runner.prompt_logits(i), golden.logits[i]));
    EXPECT_EQ(runner.generated(i), golden.greedy[i]) << "prompt " << i;
  }
  EXPECT_LT(worst, 1e-5);
  ::testing::Test::RecordProperty("logit_error", std::to_string(worst));
  std::printf("logits differ by at most %.2e of their range\n", worst);
}

class OffloadGolden : public ::testing::TestWithParam<const char*> {
 protected:
  OffloadGolden() : folder_(test::fixture_path(std::string("models/") + GetParam())) {}
  std::filesystem::path folder_;
};

TEST_P(OffloadGolden, TwoProcessesOverSharedMemory) {
  const Model model(folder_);
  Offloaded workers(model, TransportKind::kShm, 2);
  expect_golden(model, read_golden(folder_), *workers.connect());
}

TEST_P(OffloadGolden, ThreeProcessesOverSharedMemory) {
  const Model model(folder_);
  Offloaded workers(model, TransportKind::kShm, 3);
  expect_golden(model, read_golden(folder_), *workers.connect());
}

TEST_P(OffloadGolden, TwoProcessesOverTcp) {
  const Model model(folder_);
  Offloaded workers(model, TransportKind::kTcp, 2);
  expect_golden(model, read_golden(folder_), *workers.connect());
}

TEST_P(OffloadGolden, Colocated) {
  const Model model(folder_);
  ThreadPool pool(2);
  LocalAttention attention(model.core(model.sliced.attentions[0].attrs.num_kv_heads),
                           StreamView(pool));
  expect_golden(model, read_golden(folder_), attention);
}

INSTANTIATE_TEST_SUITE_P(Fixtures,
                         OffloadGolden,
                         ::testing::Values("llama-gqa",
                                           "llama-mha-tied",
                                           "llama3-rope",
                                           "mistral-swa",
                                           "qwen2",
                                           "qwen3"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lamina
