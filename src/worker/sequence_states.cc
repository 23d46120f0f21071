#include "worker/sequence_states.h"

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

}  // namespace

Status SequenceStates::apply(const StepPlan& plan, GatheredInputs& inputs) {
  for (const int32_t released : plan.released_slots) slots_[static_cast<size_t>(released)] = {};
  for (const SequenceStart& start : plan.starts) {
    slots_[static_cast<size_t>(start.slot)] = {start.sampling, start.num_prompt_tokens, {}};
  }
  inputs.token_ids.clear();
  inputs.positions.clear();
  inputs.logits_rows.clear();
  std::vector<int32_t> scored_rows;
  for (const SequenceStep& step : plan.sequences) {
    std::vector<int32_t>& tokens = slots_[static_cast<size_t>(step.slot)].tokens;
    const auto first = static_cast<size_t>(step.first_position);
    if (step.starts) tokens.resize(first);
    if (first > tokens.size()) {
      return invalid_argument(fmt::format(
          "slot {} has {} tokens, the step goes on at {}", step.slot, tokens.size(), first));
    }
    tokens.resize(first);  // what is there was run before a preemption elsewhere, or not at all
    tokens.insert(tokens.end(), step.tokens.begin(), step.tokens.end());
    if (step.samples &&
        tokens.size() <
            static_cast<size_t>(slots_[static_cast<size_t>(step.slot)].num_prompt_tokens)) {
      return invalid_argument(fmt::format(
          "slot {} is to sample within its prompt, at {} tokens", step.slot, tokens.size()));
    }
    const auto begin_row = static_cast<int32_t>(inputs.token_ids.size());
    inputs.token_ids.insert(inputs.token_ids.end(), step.tokens.begin(), step.tokens.end());
    for (int32_t i = 0; i < step.num_tokens; ++i) {
      inputs.positions.push_back(step.first_position + i);
    }
    if (step.samples) inputs.logits_rows.push_back(begin_row + step.num_tokens - 1);
    for (int32_t i = 0; i < step.num_scored; ++i) {
      scored_rows.push_back(begin_row + step.score_begin - step.first_position + i);
    }
  }
  inputs.num_sampled = static_cast<int64_t>(inputs.logits_rows.size());
  inputs.logits_rows.insert(inputs.logits_rows.end(), scored_rows.begin(), scored_rows.end());
  return {};
}

Result<std::vector<SequenceOutput>> SequenceStates::sample(const StepPlan& plan,
                                                           const GatheredInputs& inputs,
                                                           TensorView logits,
                                                           StreamView stream) {
  std::vector<SequenceOutput> outputs;
  outputs.reserve(plan.sequences.size());
  for (const SequenceStep& step : plan.sequences) outputs.push_back({.slot = step.slot});
  // First: sampling overwrites its rows, not these.
  LAMINA_RETURN_IF_ERROR(score_prompts(plan, inputs, logits, stream, outputs));
  LAMINA_RETURN_IF_ERROR(sample_tokens(plan, inputs, logits, stream, outputs));
  return outputs;
}

Status SequenceStates::score_prompts(const StepPlan& plan,
                                     const GatheredInputs& inputs,
                                     TensorView logits,
                                     StreamView stream,
                                     std::vector<SequenceOutput>& outputs) {
  int64_t row = inputs.num_sampled;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const SequenceStep& step = plan.sequences[i];
    if (step.num_scored == 0) continue;
    std::vector<kernels::SampledToken> scores(step.score_targets.size());
    LAMINA_RETURN_IF_ERROR(
        kernels::log_probabilities(logits.rows(row, step.num_scored),
                                   step.score_targets,
                                   std::max(0, slot(step.slot).sampling.num_logprobs),
                                   scores,
                                   stream));
    for (kernels::SampledToken& score : scores) {
      outputs[i].failed |= score.id == kernels::kNoToken;
      outputs[i].prompt_scores.push_back(to_scored(std::move(score)));
    }
    row += step.num_scored;
  }
  return {};
}

Status SequenceStates::sample_tokens(const StepPlan& plan,
                                     const GatheredInputs& inputs,
                                     TensorView logits,
                                     StreamView stream,
                                     std::vector<SequenceOutput>& outputs) {
  if (inputs.num_sampled == 0) return {};
  std::vector<kernels::SampleRow> rows;
  rows.reserve(static_cast<size_t>(inputs.num_sampled));
  for (const SequenceStep& step : plan.sequences) {
    if (step.samples) rows.push_back(sample_row(slot(step.slot)));
  }
  std::vector<kernels::SampledToken> sampled(rows.size());
  LAMINA_RETURN_IF_ERROR(
      kernels::sample(logits.rows(0, inputs.num_sampled), rows, sampled, stream));
  size_t next = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (!plan.sequences[i].samples) continue;
    outputs[i].token = to_scored(std::move(sampled[next++]));
    outputs[i].failed |= outputs[i].token.id == kernels::kNoToken;
    outputs[i].sampled = !outputs[i].failed;
  }
  return {};
}

kernels::SampleRow SequenceStates::sample_row(const Slot& state) {
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
