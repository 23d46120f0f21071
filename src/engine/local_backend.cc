#include "engine/local_backend.h"

#include <array>

#include "base/check.h"
#include "plan/kv_budget.h"

namespace lamina {

LocalBackend::LocalBackend(const ModelProgram& program, uint64_t kv_budget_bytes, StreamView stream)
    : program_(program),
      kv_budget_bytes_(kv_budget_bytes),
      stream_(stream),
      worker_(
          program.sliced, *program.weights, program.step_limits(), program.max_num_seqs, stream) {}

Result<int32_t> LocalBackend::open_session(int32_t min_blocks) {
  const int32_t num_kv_heads = program_.attention().num_kv_heads;
  const std::array<WorkerKvShare, 1> share = {WorkerKvShare{
      .name = "colocated", .budget_bytes = kv_budget_bytes_, .num_kv_heads = num_kv_heads}};
  LAMINA_ASSIGN_OR_RETURN(
      const int32_t num_blocks,
      plan_num_blocks(
          program_.kv_layout(num_kv_heads), share, min_blocks, most_useful_blocks(program_)));
  try {
    attention_ = std::make_unique<LocalAttention>(program_.attention_core(num_kv_heads, num_blocks),
                                                  stream_);
  } catch (const Error& error) {
    return error.status();
  }
  return num_blocks;
}

Result<std::vector<SequenceOutput>> LocalBackend::run(const StepPlan& plan) {
  LAMINA_CHECK(attention_ != nullptr);
  return worker_.run(plan, *attention_);
}

BackendTimes LocalBackend::times() const {
  const auto seconds = [](Duration duration) {
    return std::chrono::duration<double>(duration).count();
  };
  return {.model_seconds = seconds(worker_.stats().slice_time),
          .attention_wait_seconds = seconds(worker_.stats().attention_wait)};
}

}  // namespace lamina
