#include "step_loop.h"

#include <algorithm>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/error.h"

namespace lamina::bench {
namespace {

constexpr Duration kStepTimeout = std::chrono::seconds(60);

// One token at `position`.
SequenceStep token_of(int32_t slot, int32_t position) {
  return {
      .slot = slot, .first_position = position, .num_tokens = 1, .tokens = {1}, .samples = true};
}

void start_sequence(StepPlan& plan, SequenceStep step) {
  step.starts = true;
  plan.starts.push_back({.slot = step.slot,
                         .sampling = {.temperature = 0.0F},
                         .num_prompt_tokens = step.first_position + 1});
  plan.sequences.push_back(std::move(step));
}

}  // namespace

StepLoop::StepLoop(StepBackend& backend, const ModelProgram& program, int32_t least_context)
    : backend_(backend),
      program_(program),
      lanes_(backend.open_session(ceil_div(least_context, program.block_size)).value_or_throw()),
      plans_(static_cast<size_t>(program.rotation.num_micro_batches)) {}

// A token of one head and layer is the least that is written, pages are what is touched: one in
// every page's worth of tokens will do. A sequence of one block each, as many as a step takes.
void StepLoop::touch_blocks() {
  constexpr size_t kPageBytes = 4096;
  const KvLayout layout = program_.kv_layout(1);
  const size_t token_bytes =
      static_cast<size_t>(std::min(layout.head_dim, layout.value_dim)) * dtype_bytes(layout.dtype);
  const auto stride = static_cast<int32_t>(std::max<size_t>(1, kPageBytes / token_bytes));
  const int32_t at_once = program_.max_num_seqs;
  for (BlockId first = 0; first < lanes_.total(); first += at_once) {
    const BlockId end = std::min(first + at_once, lanes_.total());
    for (int32_t position = 0; position < layout.block_size; position += stride) {
      touch(first, end, position);
    }
  }
}

void StepLoop::touch(BlockId first, BlockId end, int32_t position) {
  StepPlan plan;
  plan.released_slots = std::exchange(slots_, {});
  for (BlockId block = first; block < end; ++block) {
    SequenceStep step = token_of(block - first, position);
    step.new_blocks = {block};
    slots_.push_back(step.slot);
    start_sequence(plan, std::move(step));
  }
  throw_if_error(backend_.start(0, std::move(plan)));
  static_cast<void>(wait());
}

int32_t StepLoop::most_sequences(int32_t context) const {
  return std::min(program_.max_num_seqs, lanes_.total() / ceil_div(context, program_.block_size));
}

void StepLoop::set_sequences(int32_t batch, int32_t context) {
  BlockAllocator blocks(lanes_);
  for (StepPlan& plan : plans_) plan = {};
  plans_.front().released_slots = std::exchange(slots_, {});
  for (int32_t slot = 0; slot < batch; ++slot) {
    SequenceStep step = token_of(slot, context - 1);
    for (int32_t i = 0; i < ceil_div(context, program_.block_size); ++i) {
      step.new_blocks.push_back(*blocks.allocate(step.new_blocks));
    }
    slots_.push_back(slot);
    start_sequence(plans_[static_cast<size_t>(slot) % plans_.size()], std::move(step));
  }
}

double StepLoop::run_steps(int32_t num_steps) {
  const TimePoint begin = steady_clock().now();
  std::vector<int32_t> left(plans_.size(), num_steps);
  const auto num_batches = static_cast<int32_t>(plans_.size());
  for (int32_t i = 0; i < num_batches; ++i) start(i);
  for (int32_t under_way = num_batches; under_way > 0;) {
    const int32_t ended = wait();
    if (--left[static_cast<size_t>(ended)] > 0) {
      start(ended);
    } else {
      --under_way;
    }
  }
  return std::chrono::duration<double>(steady_clock().now() - begin).count() / num_steps;
}

// From its second step on a sequence is known, and has its blocks.
void StepLoop::start(int32_t micro_batch) {
  StepPlan& plan = plans_[static_cast<size_t>(micro_batch)];
  throw_if_error(backend_.start(micro_batch, plan));
  plan.released_slots.clear();
  plan.starts.clear();
  for (SequenceStep& step : plan.sequences) {
    step.starts = false;
    step.new_blocks.clear();
  }
}

// The micro-batch whose step has ended.
int32_t StepLoop::wait() {
  const Deadline deadline = Deadline::after(kStepTimeout);
  while (!deadline.has_passed()) {
    const auto finished = backend_.wait(deadline).value_or_throw();
    if (finished) return finished->micro_batch;
  }
  throw Error(StatusCode::kDeadlineExceeded, "a step does not end");
}

}  // namespace lamina::bench
