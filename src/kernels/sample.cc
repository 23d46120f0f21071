#include "kernels/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/checks.h"
#include "kernels/cpu/sample.h"
#include "kernels/cuda/operators.h"

namespace lamina::kernels {
namespace {

Status check_logits(std::string_view op,
                    const TensorView& logits,
                    size_t num_rows,
                    size_t num_out) {
  LAMINA_RETURN_IF_ERROR(check_float_tensor(op, "logits", logits, 2));
  LAMINA_RETURN_IF_ERROR(check_tensor(
      op, "logits", logits, {static_cast<int64_t>(num_rows), logits.shape[1]}, DType::kF32));
  if (num_out == num_rows) return {};
  return invalid_argument(fmt::format("{}: {} results for {} rows", op, num_out, num_rows));
}

bool are_ids(std::span<const int32_t> ids, int64_t vocab_size) {
  return std::all_of(
      ids.begin(), ids.end(), [&](int32_t id) { return id >= 0 && id < vocab_size; });
}

// The name of the first parameter of `row` out of its range, or nullptr.
const char* find_bad_parameter(const SampleRow& row, int64_t vocab_size) {
  if (!std::isfinite(row.temperature) || row.temperature < 0) return "temperature";
  if (!(row.top_p > 0 && row.top_p <= 1)) return "top_p";
  if (!(row.min_p >= 0 && row.min_p <= 1)) return "min_p";
  if (!std::isfinite(row.presence_penalty)) return "presence_penalty";
  if (!std::isfinite(row.frequency_penalty)) return "frequency_penalty";
  if (!std::isfinite(row.repetition_penalty) || row.repetition_penalty <= 0) {
    return "repetition_penalty";
  }
  if (row.num_logprobs < -1) return "num_logprobs";
  for (const auto& [id, bias] : row.logit_bias) {
    if (id < 0 || id >= vocab_size || !std::isfinite(bias)) return "logit_bias";
  }
  if (!are_ids(row.forbidden_ids, vocab_size)) return "forbidden_ids";
  if (row.penalizes_prompt() && !are_ids(row.prompt_ids, vocab_size)) return "prompt_ids";
  if (row.penalizes_generated() && !are_ids(row.generated_ids, vocab_size)) {
    return "generated_ids";
  }
  return nullptr;
}

}  // namespace

Status sample(TensorView logits,
              std::span<const SampleRow> rows,
              std::span<SampledToken> out,
              StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_logits("sample", logits, rows.size(), out.size()));
  for (size_t s = 0; s < rows.size(); ++s) {
    if (const char* name = find_bad_parameter(rows[s], logits.shape[1]); name != nullptr) {
      return invalid_argument(fmt::format("sample: {} of row {} is out of range", name, s));
    }
  }
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::sample(logits, rows, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::sample(logits, rows, out, stream);
  }
  return {};
}

Status log_probabilities(TensorView logits,
                         std::span<const int32_t> targets,
                         int32_t num_top,
                         std::span<SampledToken> out,
                         StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_logits("log_probabilities", logits, targets.size(), out.size()));
  if (num_top < 0 || !are_ids(targets, logits.shape[1])) {
    return invalid_argument(
        fmt::format("log_probabilities: {} most probable, or a target outside of {} ids",
                    num_top,
                    logits.shape[1]));
  }
  switch (stream.device().kind) {
    case DeviceKind::kCpu:
      cpu::log_probabilities(logits, targets, num_top, out, stream.pool());
      return {};
    case DeviceKind::kCuda:
      return cuda::log_probabilities(logits, targets, num_top, out, stream);
  }
  return {};
}

}  // namespace lamina::kernels
