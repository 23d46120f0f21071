#include "kernels/cpu/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/rng.h"
#include "kernels/cpu/softmax.h"

namespace lamina::kernels::cpu {
namespace {

// Work space of one thread: grows to the vocabulary and is then reused.
struct SampleSpace {
  std::vector<int32_t> counts;  // one an id, all zero between rows
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

SampleSpace& thread_space(size_t vocab_size) {
  thread_local SampleSpace space;
  if (space.counts.size() < vocab_size) space.counts.resize(vocab_size, 0);
  space.weights.resize(vocab_size);
  return space;
}

// Four partial sums, since one would wait for itself; in a fixed order.
double sum(std::span<const float> values) {
  double sums[4] = {};
  size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) sums[lane] += double{values[i + lane]};
  }
  for (; i < values.size(); ++i) sums[0] += double{values[i]};
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The `count` largest of `logits`, largest first, smaller id first among equals. Never sorts more
// than `count`.
void select_top(std::span<const float> logits, size_t count, std::vector<int32_t>& ids) {
  const auto is_better = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  count = std::min(count, logits.size());
  if (count == 0) return ids.clear();
  if (count > logits.size() / 8) {
    ids.resize(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    const auto end = ids.begin() + static_cast<std::ptrdiff_t>(count);
    if (end != ids.end()) std::nth_element(ids.begin(), end, ids.end(), is_better);
    ids.resize(count);
    std::sort(ids.begin(), ids.end(), is_better);
    return;
  }
  ids.resize(count);
  std::iota(ids.begin(), ids.end(), 0);
  std::make_heap(ids.begin(), ids.end(), is_better);  // the worst in front
  for (size_t i = count; i < logits.size(); ++i) {
    if (!(logits[i] > logits[static_cast<size_t>(ids.front())])) continue;
    std::pop_heap(ids.begin(), ids.end(), is_better);
    ids.back() = static_cast<int32_t>(i);
    std::push_heap(ids.begin(), ids.end(), is_better);
  }
  std::sort_heap(ids.begin(), ids.end(), is_better);
}

void apply_repetition_penalty(std::span<float> logits,
                              const SampleRow& row,
                              std::vector<int32_t>& is_seen) {
  const auto penalise = [&](int32_t id) {
    int32_t& seen = is_seen[static_cast<size_t>(id)];
    if (seen != 0) return;
    seen = 1;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  };
  for (const int32_t id : row.prompt_ids) penalise(id);
  for (const int32_t id : row.generated_ids) penalise(id);
  for (const int32_t id : row.prompt_ids) is_seen[static_cast<size_t>(id)] = 0;
  for (const int32_t id : row.generated_ids) is_seen[static_cast<size_t>(id)] = 0;
}

void apply_count_penalties(std::span<float> logits,
                           const SampleRow& row,
                           std::vector<int32_t>& counts) {
  for (const int32_t id : row.generated_ids) ++counts[static_cast<size_t>(id)];
  for (const int32_t id : row.generated_ids) {
    int32_t& count = counts[static_cast<size_t>(id)];
    if (count == 0) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit -= row.frequency_penalty * static_cast<float>(count);
    logit -= row.presence_penalty;
    count = 0;
  }
}

void adjust_logits(std::span<float> logits, const SampleRow& row, SampleSpace& space) {
  if (row.penalizes_prompt()) apply_repetition_penalty(logits, row, space.counts);
  if (row.frequency_penalty != 0.0F || row.presence_penalty != 0.0F) {
    apply_count_penalties(logits, row, space.counts);
  }
  for (const auto& [id, bias] : row.logit_bias) logits[static_cast<size_t>(id)] += bias;
  for (const int32_t id : row.forbidden_ids) {
    logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
}

void fill_logprobs(std::span<const float> logits,
                   float top,
                   int32_t num_top,
                   SampleSpace& space,
                   SampledToken& token) {
  const auto count = static_cast<int64_t>(logits.size());
  const std::span<float> weights(space.weights.data(), logits.size());
  softmax_weights(logits.data(), count, top, 1.0F, weights.data());
  // Differences to the largest first: they are small where probabilities matter.
  const double log_total = std::log(sum(weights));
  const auto logprob = [&](int32_t id) {
    const double shifted = double{logits[static_cast<size_t>(id)]} - double{top};
    return static_cast<float>(shifted - log_total);
  };
  token.logprob = logprob(token.id);
  token.top_logprobs.clear();
  select_top(logits, static_cast<size_t>(num_top), space.ids);
  for (const int32_t id : space.ids) token.top_logprobs.push_back({id, logprob(id)});
}

// Index drawn with probability weights[i] / sum(weights); u in [0, 1).
size_t draw_index(std::span<const float> weights, double u) {
  const double target = u * sum(weights);
  double cumulative = 0.0;
  size_t last_possible = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    cumulative += double{weights[i]};
    last_possible = i;
    if (cumulative > target) break;
  }
  return last_possible;
}

void drop_improbable(std::span<float> weights, float top, float min_p) {
  for (float& weight : weights) {
    if (weight < min_p * top) weight = 0.0F;
  }
}

// Length of the shortest prefix of `ids` whose weights reach `target`, or 0 if none does.
size_t prefix_reaching(std::span<const int32_t> ids,
                       std::span<const float> weights,
                       double target) {
  double cumulative = 0.0;
  for (size_t i = 0; i < ids.size(); ++i) {
    cumulative += double{weights[static_cast<size_t>(ids[i])]};
    if (cumulative >= target) return i + 1;
  }
  return 0;
}

// Leaves in space.ids what top-k and top-p keep; weights are of all ids.
void select_candidates(std::span<const float> logits,
                       std::span<const float> weights,
                       const SampleRow& row,
                       SampleSpace& space) {
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < logits.size()) {
    select_top(logits, static_cast<size_t>(row.top_k), space.ids);
    if (row.top_p >= 1.0F) return;
    double total = 0.0;
    for (const int32_t id : space.ids) total += double{weights[static_cast<size_t>(id)]};
    const size_t kept = prefix_reaching(space.ids, weights, double{row.top_p} * total);
    if (kept > 0) space.ids.resize(kept);
    return;
  }
  // Most of the mass lies in few tokens: look at some, and at eight times as many where that was
  // too few.
  const double target = double{row.top_p} * sum(weights);
  for (size_t count = 64;; count *= 8) {
    select_top(logits, count, space.ids);
    const size_t kept = prefix_reaching(space.ids, weights, target);
    if (kept > 0) return space.ids.resize(kept);
    if (count >= logits.size()) return;  // rounding kept the sum below the target: all of them
  }
}

// Draws in ascending order of ids, whatever was kept: one rule for all parameters.
int32_t draw_token(std::span<const float> logits,
                   float top,
                   const SampleRow& row,
                   SampleSpace& space) {
  const double u = Rng(row.seed, row.generated_ids.size()).next_double();
  const std::span<float> weights(space.weights.data(), logits.size());
  softmax_weights(
      logits.data(), static_cast<int64_t>(logits.size()), top, row.temperature, weights.data());
  const float top_weight = 1.0F;  // exp(0)
  const bool has_top_k = row.top_k > 0 && static_cast<size_t>(row.top_k) < logits.size();
  if (!has_top_k && row.top_p >= 1.0F) {
    if (row.min_p > 0) drop_improbable(weights, top_weight, row.min_p);
    return static_cast<int32_t>(draw_index(weights, u));
  }
  select_candidates(logits, weights, row, space);
  std::sort(space.ids.begin(), space.ids.end());
  // Ascending ids: weights move to the front without overwriting one that is still needed.
  for (size_t i = 0; i < space.ids.size(); ++i) {
    weights[i] = weights[static_cast<size_t>(space.ids[i])];
  }
  const std::span<float> kept = weights.first(space.ids.size());
  drop_improbable(kept, top_weight, row.min_p);
  return space.ids[draw_index(kept, u)];
}

int32_t find_first(std::span<const float> logits, float value) {
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), value) - logits.begin());
}

SampledToken sample_row(std::span<float> logits, const SampleRow& row) {
  SampleSpace& space = thread_space(logits.size());
  adjust_logits(logits, row, space);
  const LogitSummary summary = clean_logits(logits.data(), static_cast<int64_t>(logits.size()));
  SampledToken token;
  if (!summary.has_finite) return token;
  token.id = row.temperature > 0 ? draw_token(logits, summary.top, row, space)
                                 : find_first(logits, summary.top);
  if (row.num_logprobs >= 0) fill_logprobs(logits, summary.top, row.num_logprobs, space, token);
  return token;
}

SampledToken score_row(std::span<float> logits, int32_t target, int32_t num_top) {
  const LogitSummary summary = clean_logits(logits.data(), static_cast<int64_t>(logits.size()));
  SampledToken token;
  if (!summary.has_finite) return token;
  token.id = target;
  fill_logprobs(logits, summary.top, num_top, thread_space(logits.size()), token);
  return token;
}

template <typename Body>
void for_each_row(const TensorView& logits, ThreadPool& pool, const Body& body) {
  pool.parallel_for(logits.shape[0], 1, [&body](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) body(s);
  });
}

}  // namespace

void sample(const TensorView& logits,
            std::span<const SampleRow> rows,
            std::span<SampledToken> out,
            ThreadPool& pool) {
  const auto vocab_size = static_cast<size_t>(logits.shape[1]);
  for_each_row(logits, pool, [&](int64_t s) {
    const auto idx = static_cast<size_t>(s);
    out[idx] = sample_row({logits.row<float>(s), vocab_size}, rows[idx]);
  });
}

void log_probabilities(const TensorView& logits,
                       std::span<const int32_t> targets,
                       int32_t num_top,
                       std::span<SampledToken> out,
                       ThreadPool& pool) {
  const auto vocab_size = static_cast<size_t>(logits.shape[1]);
  for_each_row(logits, pool, [&](int64_t s) {
    const auto idx = static_cast<size_t>(s);
    out[idx] = score_row({logits.row<float>(s), vocab_size}, targets[idx], num_top);
  });
}

}  // namespace lamina::kernels::cpu
