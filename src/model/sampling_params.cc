#include "model/sampling_params.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

namespace lamina {
namespace {

struct Range {
  float low;
  float high;
};

// Written so that NaN fails.
Status check_range(std::string_view name, float value, Range range) {
  if (value >= range.low && value <= range.high) return Status::ok_status();
  return invalid_argument(
      fmt::format("{} is {}, expected {} to {}", name, value, range.low, range.high));
}

Status check_token(std::string_view name, int32_t id, int32_t vocab_size) {
  if (id >= 0 && id < vocab_size) return Status::ok_status();
  return invalid_argument(
      fmt::format("{} names token {}, expected 0 to {}", name, id, vocab_size - 1));
}

Status check_positive(std::string_view name, float value) {
  if (value > 0.0F && std::isfinite(value)) return Status::ok_status();
  return invalid_argument(fmt::format("{} is {}, expected a number above 0", name, value));
}

}  // namespace

Status SamplingParams::validate(int32_t vocab_size) const {
  if (!(temperature >= 0.0F) || !std::isfinite(temperature)) {
    return invalid_argument(fmt::format("temperature is {}, expected 0 or more", temperature));
  }
  LAMINA_RETURN_IF_ERROR(check_positive("top_p", top_p));
  LAMINA_RETURN_IF_ERROR(check_range("top_p", top_p, {0.0F, 1.0F}));
  if (top_k < -1) {
    return invalid_argument(fmt::format("top_k is {}, expected -1 or more", top_k));
  }
  LAMINA_RETURN_IF_ERROR(check_range("min_p", min_p, {0.0F, 1.0F}));
  LAMINA_RETURN_IF_ERROR(check_range("presence_penalty", presence_penalty, {-2.0F, 2.0F}));
  LAMINA_RETURN_IF_ERROR(check_range("frequency_penalty", frequency_penalty, {-2.0F, 2.0F}));
  LAMINA_RETURN_IF_ERROR(check_positive("repetition_penalty", repetition_penalty));
  for (const auto& [id, bias] : logit_bias) {
    LAMINA_RETURN_IF_ERROR(check_token("logit_bias", id, vocab_size));
    LAMINA_RETURN_IF_ERROR(check_range("logit_bias", bias, {-100.0F, 100.0F}));
  }
  for (const int32_t id : forbidden_ids) {
    LAMINA_RETURN_IF_ERROR(check_token("forbidden_ids", id, vocab_size));
  }
  if (num_logprobs < -1 || num_logprobs > vocab_size) {
    return invalid_argument(
        fmt::format("num_logprobs is {}, expected -1 to {}", num_logprobs, vocab_size));
  }
  return Status::ok_status();
}

}  // namespace lamina
