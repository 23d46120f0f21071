#include "kernels/ref/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/rng.h"

namespace lamina::kernels::ref {
namespace {

constexpr double kNegativeInfinity = -std::numeric_limits<double>::infinity();

struct Candidate {
  int32_t id = 0;
  double logit = 0.0;
};

void adjust(std::vector<Candidate>& candidates, const SampleRow& row) {
  std::set<int32_t> seen(row.prompt_ids.begin(), row.prompt_ids.end());
  std::map<int32_t, int> counts;
  for (const int32_t id : row.generated_ids) {
    seen.insert(id);
    ++counts[id];
  }
  for (const int32_t id : seen) {
    double& logit = candidates[static_cast<size_t>(id)].logit;
    logit =
        logit > 0 ? logit / double{row.repetition_penalty} : logit * double{row.repetition_penalty};
  }
  for (const auto& [id, count] : counts) {
    double& logit = candidates[static_cast<size_t>(id)].logit;
    logit -= double{row.frequency_penalty} * count + double{row.presence_penalty};
  }
  for (const auto& [id, bias] : row.logit_bias) {
    candidates[static_cast<size_t>(id)].logit += double{bias};
  }
  for (const int32_t id : row.forbidden_ids) {
    candidates[static_cast<size_t>(id)].logit = kNegativeInfinity;
  }
}

// Softmax of candidates that are sorted, the largest first.
std::vector<double> probabilities(const std::vector<Candidate>& sorted, double temperature) {
  std::vector<double> result;
  double total = 0.0;
  for (const Candidate& candidate : sorted) {
    result.push_back(std::exp((candidate.logit - sorted[0].logit) / temperature));
    total += result.back();
  }
  for (double& p : result) p /= total;
  return result;
}

// Keeps what top-k, top-p and min-p keep.
void restrict_to(std::vector<Candidate>& sorted, const SampleRow& row) {
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < sorted.size()) {
    sorted.resize(static_cast<size_t>(row.top_k));
  }
  if (row.top_p < 1.0F) {
    const std::vector<double> p = probabilities(sorted, double{row.temperature});
    double cumulative = 0.0;
    size_t count = 0;
    while (count < sorted.size() && cumulative < double{row.top_p}) cumulative += p[count++];
    sorted.resize(count);
  }
  const std::vector<double> p = probabilities(sorted, double{row.temperature});
  size_t count = 0;
  while (count < sorted.size() && p[count] >= double{row.min_p} * p[0]) ++count;
  sorted.resize(count);
}

}  // namespace

SampledToken sample(std::span<const float> logits, const SampleRow& row) {
  std::vector<Candidate> candidates;
  for (const float logit : logits) {
    candidates.push_back({static_cast<int32_t>(candidates.size()),
                          std::isnan(logit) ? kNegativeInfinity : double{logit}});
  }
  adjust(candidates, row);
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.logit > b.logit;
  });

  SampledToken token;
  const std::vector<Candidate> all = candidates;
  const std::vector<double> all_p = probabilities(all, 1.0);
  token.id = candidates[0].id;
  if (row.temperature > 0) {
    restrict_to(candidates, row);
    const std::vector<double> p = probabilities(candidates, double{row.temperature});
    std::map<int32_t, double> by_id;
    for (size_t i = 0; i < p.size(); ++i) by_id[candidates[i].id] = p[i];
    const double u = Rng(row.seed, row.generated_ids.size()).next_double();
    double cumulative = 0.0;
    for (const auto& [id, probability] : by_id) {
      cumulative += probability;
      if (probability > 0) token.id = id;
      if (cumulative > u) break;
    }
  }
  for (size_t i = 0; i < all.size() && row.num_logprobs >= 0; ++i) {
    const auto logprob = static_cast<float>(std::log(all_p[i]));
    if (all[i].id == token.id) token.logprob = logprob;
    if (i < static_cast<size_t>(row.num_logprobs)) {
      token.top_logprobs.push_back({all[i].id, logprob});
    }
  }
  return token;
}

}  // namespace lamina::kernels::ref
