#include "support/golden_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace lamina::test {

GoldenRunner::GoldenRunner(const ModelProgram& program,
                           const Golden& golden,
                           std::span<const std::unique_ptr<AttentionBackend>> attention,
                           const BlockLanes& lanes,
                           std::span<const StreamView> streams)
    : golden_(golden),
      blocks_(lanes),
      stream_(streams.front()),
      ranks_(program.rank_models(streams),
             program.step_limits(),
             /*num_micro_batches=*/1,
             std::chrono::seconds(30)),
      tokens_(golden.prompts),
      num_cached_(golden.prompts.size(), 0),
      logits_(golden.prompts.size()),
      margins_(golden.prompts.size()) {
  for (const auto& of_rank : attention) attention_.push_back(of_rank.get());
}

void GoldenRunner::run() {
  const auto is_under_way = [&] {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (!is_done(i)) return true;
    }
    return false;
  };
  while (is_under_way()) ASSERT_NO_FATAL_FAILURE(step());
}

std::vector<int32_t> GoldenRunner::generated(size_t idx) const {
  return {tokens_[idx].begin() + static_cast<ptrdiff_t>(golden_.prompts[idx].size()),
          tokens_[idx].end()};
}

bool GoldenRunner::is_done(size_t idx) const {
  return tokens_[idx].size() == golden_.prompts[idx].size() + golden_.greedy[idx].size();
}

void GoldenRunner::step() {
  StepPlan plan;
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (is_done(i)) continue;
    const auto count =
        std::min<int32_t>(kGoldenChunk, static_cast<int32_t>(tokens_[i].size()) - num_cached_[i]);
    SequenceStep sequence{
        .slot = static_cast<int32_t>(i), .first_position = num_cached_[i], .num_tokens = count};
    if (num_cached_[i] == 0) {
      sequence.starts = true;
      for (int32_t block = 0; block < kFixtureBlocksPerSequence; ++block) {
        sequence.new_blocks.push_back(*blocks_.allocate(sequence.new_blocks));
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
      check(ranks_.begin(0, {.token_ids = ids, .positions = positions, .logits_rows = rows})));
  for (AttentionBackend* backend : attention_) {
    ASSERT_NO_FATAL_FAILURE(check(backend->begin_step(0, {.num_rows = ranks_.num_rows(0)}, plan)));
  }
  // As a replica does it where attention only enqueues: on a GPU decoding steps are one graph.
  const SliceRun whole = {.micro_batch = 0, .begin = 0, .end = ranks_.num_slices()};
  ASSERT_NO_FATAL_FAILURE(check(ranks_.run_slices(std::span(&whole, 1), attention_)));
  collect(plan);
}

void GoldenRunner::collect(const StepPlan& plan) {
  const TensorView logits = ranks_.logits();
  const auto vocab = static_cast<size_t>(logits.shape[1]);
  std::vector<float> values(static_cast<size_t>(logits.shape[0]) * vocab);
  ASSERT_TRUE(copy(values.data(), logits.data, values.size() * sizeof(float), stream_).ok());
  const Status done = synchronize(stream_);
  ASSERT_TRUE(done.ok()) << done.to_string();
  std::span<const float> rest = values;
  for (const SequenceStep& sequence : plan.sequences) {
    const auto idx = static_cast<size_t>(sequence.slot);
    const auto rows = rest.first(static_cast<size_t>(sequence.num_tokens) * vocab);
    rest = rest.subspan(rows.size());
    const auto wanted =
        rows.first(std::min(rows.size(), golden_.logits[idx].size() - logits_[idx].size()));
    logits_[idx].insert(logits_[idx].end(), wanted.begin(), wanted.end());
    num_cached_[idx] += sequence.num_tokens;
    if (num_cached_[idx] == static_cast<int32_t>(tokens_[idx].size())) {
      take_next(idx, rows.last(vocab));
    }
  }
}

void GoldenRunner::take_next(size_t idx, std::span<const float> logits) {
  const auto best = std::ranges::max_element(logits);
  const auto [low, high] = std::ranges::minmax(logits);
  float second = low;
  for (auto at = logits.begin(); at != logits.end(); ++at) {
    if (at != best) second = std::max(second, *at);
  }
  tokens_[idx].push_back(static_cast<int32_t>(best - logits.begin()));
  margins_[idx].push_back((high - second) / (high - low));
}

double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst,
                     std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])));
  }
  return worst / (static_cast<double>(*high) - static_cast<double>(*low));
}

}  // namespace lamina::test
