#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/cpu/experts.h"
#include "kernels/cpu/row_loop.h"
#include "kernels/ref/element.h"

namespace lamina::kernels::cpu {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// Work space of one token.
struct Scores {
  std::vector<float> weights;    // [X] what a chosen expert's weight is
  std::vector<float> choosing;   // [X] what is chosen by; -inf: out of question
  std::vector<float> of_groups;  // likewise
};

void softmax(const float* logits, std::span<float> out) {
  float top = kNegativeInfinity;
  for (size_t i = 0; i < out.size(); ++i) top = std::max(top, logits[i]);
  float total = 0.0F;
  for (size_t i = 0; i < out.size(); ++i) total += out[i] = std::exp(logits[i] - top);
  for (float& weight : out) weight /= total;
}

// Index of the largest score, the first among equals; 0 if all are -inf or NaN.
size_t best_of(std::span<const float> scores) {
  size_t best = 0;
  float top = kNegativeInfinity;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > top) top = scores[best = i];
  }
  return best;
}

// The best score of a group; with a bias the sum of its two best.
float group_score(std::span<const float> scores, bool sum_of_two) {
  float first = kNegativeInfinity;
  float second = kNegativeInfinity;
  for (const float score : scores) {
    if (score > first) {
      second = first;
      first = score;
    } else if (score > second) {
      second = score;
    }
  }
  return sum_of_two && scores.size() > 1 ? first + second : first;
}

void leave_best_groups(const RouteAttrs& attrs, bool has_bias, Scores& scores) {
  const size_t size = scores.choosing.size() / static_cast<size_t>(attrs.num_groups);
  scores.of_groups.clear();
  for (int32_t g = 0; g < attrs.num_groups; ++g) {
    const auto group = std::span(scores.choosing).subspan(static_cast<size_t>(g) * size, size);
    scores.of_groups.push_back(group_score(group, has_bias));
  }
  std::vector<bool> stays(scores.of_groups.size());
  for (int32_t i = 0; i < attrs.top_groups; ++i) {
    const size_t best = best_of(scores.of_groups);
    stays[best] = true;
    scores.of_groups[best] = kNegativeInfinity;
  }
  for (size_t i = 0; i < scores.choosing.size(); ++i) {
    if (!stays[i / size]) scores.choosing[i] = kNegativeInfinity;
  }
}

void route_token(const float* logits,
                 const TensorView& bias,
                 const RouteAttrs& attrs,
                 Scores& scores,
                 float* out) {
  if (attrs.scoring == RouteScoring::kSoftmax) {
    softmax(logits, scores.weights);
  } else {
    for (size_t i = 0; i < scores.weights.size(); ++i) {
      scores.weights[i] = 1.0F / (1.0F + std::exp(-logits[i]));
    }
  }
  for (size_t i = 0; i < scores.weights.size(); ++i) {
    const float shift = bias.empty() ? 0.0F : ref::get(bias, static_cast<int64_t>(i), 0);
    scores.choosing[i] = scores.weights[i] + shift;
  }
  if (attrs.num_groups > 1) leave_best_groups(attrs, !bias.empty(), scores);
  std::fill(out, out + scores.weights.size(), 0.0F);
  float total = 0.0F;
  for (int32_t i = 0; i < attrs.top_k; ++i) {
    const size_t best = best_of(scores.choosing);
    scores.choosing[best] = kNegativeInfinity;
    out[best] = scores.weights[best];
    total += out[best];
  }
  const float factor = attrs.renormalize ? attrs.scale / (total + 1e-20F) : attrs.scale;
  for (size_t i = 0; i < scores.weights.size(); ++i) out[i] *= factor;
}

}  // namespace

void route(const TensorView& logits,
           const TensorView& bias,
           const RouteAttrs& attrs,
           const TensorView& out,
           ThreadPool& pool) {
  const auto num_experts = static_cast<size_t>(logits.shape[1]);
  for_each_row(logits, pool, [&](int64_t t) {
    thread_local Scores scores;
    scores.weights.resize(num_experts);
    scores.choosing.resize(num_experts);
    route_token(logits.row<float>(t), bias, attrs, scores, out.row<float>(t));
  });
}

}  // namespace lamina::kernels::cpu
