#include "worker/model_worker.h"

#include <fmt/format.h>

#include <algorithm>

namespace lamina {
namespace {

ScoredToken to_scored(kernels::SampledToken&& token) {
  ScoredToken scored{.id = token.id, .logprob = token.logprob, .top_logprobs = {}};
  scored.top_logprobs.reserve(token.top_logprobs.size());
  for (const kernels::TokenLogprob& entry : token.top_logprobs) {
    scored.top_logprobs.push_back({.id = entry.id, .logprob = entry.logprob});
  }
  return scored;
}

// How long a rank waits for the others: longer than any layer's attention may take, since another
// rank may be waiting for that.
constexpr Duration kExchangeTimeout = std::chrono::seconds(180);

}  // namespace

ModelWorker::ModelWorker(std::span<const RankModel> ranks,
                         const StepLimits& limits,
                         int32_t num_slots)
    : ranks_(ranks, limits, kExchangeTimeout),
      stream_(ranks.front().stream),
      slots_(static_cast<size_t>(num_slots)) {}

Result<std::vector<SequenceOutput>> ModelWorker::run(const StepPlan& plan,
                                                     std::span<AttentionBackend* const> attention) {
  apply_starts(plan);
  LAMINA_RETURN_IF_ERROR(gather_inputs(plan));
  const StepInputs inputs{
      .token_ids = token_ids_, .positions = positions_, .logits_rows = logits_rows_};
  LAMINA_RETURN_IF_ERROR(ranks_.run(plan, inputs, attention));
  return read_logits(plan);
}

void ModelWorker::apply_starts(const StepPlan& plan) {
  for (const int32_t released : plan.released_slots) slots_[static_cast<size_t>(released)] = {};
  for (const SequenceStart& start : plan.starts) {
    slots_[static_cast<size_t>(start.slot)] = {
        start.sampling, start.num_prompt_tokens, start.tokens};
  }
}

// Token ids and positions of the step, and which of its rows need logits: first every row that is
// sampled from, then the scored ones, each in the plan's order.
Status ModelWorker::gather_inputs(const StepPlan& plan) {
  token_ids_.clear();
  positions_.clear();
  logits_rows_.clear();
  scored_rows_.clear();
  for (const SequenceStep& step : plan.sequences) {
    const std::vector<int32_t>& tokens = slot(step.slot).tokens;
    const int32_t end = step.first_position + step.num_tokens;
    if (end > static_cast<int32_t>(tokens.size())) {
      return internal_error(
          fmt::format("slot {} has {} tokens, the plan wants {}", step.slot, tokens.size(), end));
    }
    const int32_t row_of_position_0 = static_cast<int32_t>(token_ids_.size()) - step.first_position;
    token_ids_.insert(token_ids_.end(), tokens.begin() + step.first_position, tokens.begin() + end);
    for (int32_t position = step.first_position; position < end; ++position)
      positions_.push_back(position);
    if (step.samples) logits_rows_.push_back(row_of_position_0 + end - 1);
    for (int32_t i = 0; i < step.num_scored; ++i) {
      scored_rows_.push_back(row_of_position_0 + step.score_begin + i);
    }
  }
  num_sampled_ = static_cast<int64_t>(logits_rows_.size());
  logits_rows_.insert(logits_rows_.end(), scored_rows_.begin(), scored_rows_.end());
  return {};
}

Result<std::vector<SequenceOutput>> ModelWorker::read_logits(const StepPlan& plan) {
  std::vector<SequenceOutput> outputs;
  outputs.reserve(plan.sequences.size());
  for (const SequenceStep& step : plan.sequences) {
    outputs.push_back({.slot = step.slot});
  }
  LAMINA_RETURN_IF_ERROR(
      score_prompts(plan, outputs));  // first: sampling overwrites its rows, not these
  LAMINA_RETURN_IF_ERROR(sample_tokens(plan, outputs));
  return outputs;
}

Status ModelWorker::score_prompts(const StepPlan& plan, std::vector<SequenceOutput>& outputs) {
  const TensorView logits = ranks_.logits();
  int64_t row = num_sampled_;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const SequenceStep& step = plan.sequences[i];
    if (step.num_scored == 0) continue;
    const SlotState& state = slot(step.slot);
    const auto targets = std::span(state.tokens)
                             .subspan(static_cast<size_t>(step.score_begin) + 1,
                                      static_cast<size_t>(step.num_scored));
    std::vector<kernels::SampledToken> scores(targets.size());
    LAMINA_RETURN_IF_ERROR(kernels::log_probabilities(logits.rows(row, step.num_scored),
                                                      targets,
                                                      std::max(0, state.sampling.num_logprobs),
                                                      scores,
                                                      stream_));
    for (kernels::SampledToken& score : scores) {
      outputs[i].failed |= score.id == kernels::kNoToken;
      outputs[i].prompt_scores.push_back(to_scored(std::move(score)));
    }
    row += step.num_scored;
  }
  return {};
}

Status ModelWorker::sample_tokens(const StepPlan& plan, std::vector<SequenceOutput>& outputs) {
  if (num_sampled_ == 0) return {};
  std::vector<kernels::SampleRow> rows;
  rows.reserve(static_cast<size_t>(num_sampled_));
  for (const SequenceStep& step : plan.sequences) {
    if (step.samples) rows.push_back(sample_row(slot(step.slot)));
  }
  std::vector<kernels::SampledToken> sampled(rows.size());
  LAMINA_RETURN_IF_ERROR(
      kernels::sample(ranks_.logits().rows(0, num_sampled_), rows, sampled, stream_));
  size_t next = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (!plan.sequences[i].samples) continue;
    outputs[i].token = to_scored(std::move(sampled[next++]));
    outputs[i].failed |= outputs[i].token.id == kernels::kNoToken;
    outputs[i].sampled = !outputs[i].failed;
    if (outputs[i].failed) continue;
    slots_[static_cast<size_t>(plan.sequences[i].slot)].tokens.push_back(outputs[i].token.id);
  }
  return {};
}

kernels::SampleRow ModelWorker::sample_row(const SlotState& state) {
  const SamplingParams& params = state.sampling;
  const std::span<const int32_t> tokens = state.tokens;
  const auto num_prompt = static_cast<size_t>(state.num_prompt_tokens);
  const bool may_stop = static_cast<int32_t>(tokens.size() - num_prompt) >= params.min_tokens;
  return {.temperature = params.temperature,
          .top_p = params.top_p,
          .top_k = params.top_k,
          .min_p = params.min_p,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty,
          .repetition_penalty = params.repetition_penalty,
          .seed = params.seed,
          .num_logprobs = params.num_logprobs,
          .logit_bias = params.logit_bias,
          .forbidden_ids = may_stop ? std::span<const int32_t>()
                                    : std::span<const int32_t>(params.forbidden_ids),
          .prompt_ids = tokens.first(num_prompt),
          .generated_ids = tokens.subspan(num_prompt)};
}

}  // namespace lamina
