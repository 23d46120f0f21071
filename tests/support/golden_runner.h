// Runs a fixture's prompts through a model wherever its ranks and its attention are: for tests
// against golden outputs.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/model_program.h"
#include "kv/block_allocator.h"
#include "support/fixture_model.h"
#include "worker/attention_backend.h"
#include "worker/rank_group.h"

namespace lamina::test {

// Prompt tokens of a sequence in a step: prompts of 33 and 100 take several.
inline constexpr int32_t kGoldenChunk = 24;
inline constexpr int32_t kGoldenMaxTokens = kFixtureSequences * kGoldenChunk;

// Runs all prompts side by side, collecting the logits of every token, then greedy ids.
class GoldenRunner {
 public:
  // All outlive the runner. `streams`: one for each rank.
  GoldenRunner(const ModelProgram& program,
               const Golden& golden,
               std::span<const std::unique_ptr<AttentionBackend>> attention,
               const BlockLanes& lanes,
               std::span<const StreamView> streams);

  // Fails the test at the first error.
  void run();

  [[nodiscard]] const std::vector<float>& prompt_logits(size_t idx) const { return logits_[idx]; }
  [[nodiscard]] std::vector<int32_t> generated(size_t idx) const;
  // Of generated id `i` of prompt `idx`: how far the logit that chose it is above the next, as a
  // share of the logits' range.
  [[nodiscard]] const std::vector<float>& margins(size_t idx) const { return margins_[idx]; }

 private:
  [[nodiscard]] bool is_done(size_t idx) const;
  void step();
  void collect(const StepPlan& plan);
  void take_next(size_t idx, std::span<const float> logits);

  const Golden& golden_;
  BlockAllocator blocks_;
  std::vector<AttentionBackend*> attention_;
  StreamView stream_;  // of rank 0, which has the logits
  RankGroup ranks_;
  std::vector<std::vector<int32_t>> tokens_;
  std::vector<int32_t> num_cached_;
  std::vector<std::vector<float>> logits_;
  std::vector<std::vector<float>> margins_;
};

// Largest error of the logits as a share of their range (max - min).
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected);

}  // namespace lamina::test
