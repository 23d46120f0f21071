#include "scheduler/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/error.h"

namespace lamina {
namespace {

void require(bool condition, std::string_view what) {
  if (!condition) throw Error(StatusCode::kInvalidArgument, fmt::format("scheduler: {}", what));
}

// Tokens whose keys and values are not in blocks yet: one when decoding, more in prefill.
int32_t remaining_tokens(const Sequence& sequence) {
  return sequence.num_tokens() - sequence.num_cached_tokens;
}

// Positions of [begin, begin + count) whose successor is a prompt token that has no score yet.
struct ScoreRange {
  int32_t begin = 0;
  int32_t count = 0;
};

ScoreRange unscored(const Sequence& sequence, int32_t begin, int32_t count) {
  if (!sequence.wants_prompt_scores) return {};
  const int32_t first = std::max(begin, sequence.num_scored);
  const int32_t last = std::min(begin + count, sequence.num_prompt_tokens - 1);
  return {first, std::max(0, last - first)};
}

}  // namespace

void SchedulerConfig::validate() const {
  require(blocks.total() > 0, "num_blocks must be positive");
  require(block_size > 0, "--block-size must be positive");
  require(num_micro_batches > 0, "--micro-batches must be positive");
  require(max_num_seqs > 0, "--max-num-seqs must be positive");
  require(max_num_batched_tokens >= max_num_seqs,
          "--max-num-batched-tokens must be at least --max-num-seqs");
  require(max_logits_rows > max_num_seqs, "max_logits_rows must exceed max_num_seqs");
}

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config),
      allocator_(config.blocks),
      slots_(static_cast<size_t>(config.max_num_seqs), nullptr),
      num_active_(config.num_micro_batches) {
  config_.validate();
  for (int32_t slot = config_.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::add(Sequence* sequence) {
  LAMINA_CHECK_LE(blocks_for(sequence->max_total_tokens), allocator_.num_blocks());
  LAMINA_CHECK_GT(sequence->num_prompt_tokens, 0);
  sequence->state = SequenceState::kWaiting;
  waiting_.push_back(sequence);
}

void Scheduler::remove(Sequence* sequence) {
  switch (sequence->state) {
    case SequenceState::kWaiting:
      std::erase(waiting_, sequence);
      break;
    case SequenceState::kRunning:
      release(*sequence);
      break;
    case SequenceState::kRemoved:
      return;
  }
  sequence->state = SequenceState::kRemoved;
}

StepPlan Scheduler::schedule(int32_t micro_batch) {
  feed_starved();
  Budget budget{.tokens = config_.max_num_batched_tokens,
                .score_rows = config_.max_logits_rows - config_.max_num_seqs};
  for (const Sequence* sequence : running_) {
    const bool decodes = sequence->micro_batch == micro_batch && remaining_tokens(*sequence) == 1;
    budget.decode_tokens += decodes ? 1 : 0;
  }
  StepPlan plan;
  schedule_running(micro_batch, budget, plan);
  if (micro_batch < num_active_) admit_waiting(micro_batch, budget, plan);
  if (!plan.empty()) plan.released_slots = std::exchange(released_slots_, {});
  return plan;
}

void Scheduler::schedule_running(int32_t micro_batch, Budget& budget, StepPlan& plan) {
  // Oldest first: a victim of preemption is younger than whoever needs its blocks, so it is not in
  // the plan yet.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.micro_batch != micro_batch) continue;
    if (remaining_tokens(sequence) == 1) --budget.decode_tokens;
    const int32_t num_tokens = chunk_tokens(sequence, budget);
    if (num_tokens == 0) continue;
    const Room room = make_room(sequence, num_tokens);
    if (room == Room::kPreemptedItself) return;  // and it was the youngest
    if (room == Room::kMustWait) continue;
    append_step(sequence, num_tokens, /*starts=*/false, budget, plan);
  }
}

// Blocks of a younger sequence in a step could not be taken when they were wanted; they can as soon
// as its step has ended.
void Scheduler::feed_starved() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (!sequence.is_starved) continue;
    if (make_room(sequence, 1) == Room::kPreemptedItself) return;
  }
}

void Scheduler::admit_waiting(int32_t micro_batch, Budget& budget, StepPlan& plan) {
  while (!waiting_.empty() && !free_slots_.empty()) {
    Sequence& sequence = *waiting_.front();
    if (!may_join(sequence, micro_batch)) return;
    const int32_t num_tokens = chunk_tokens(sequence, budget);
    if (num_tokens == 0 || !can_admit(sequence)) return;
    LAMINA_CHECK(reserve_blocks(sequence, sequence.num_tokens()));
    waiting_.pop_front();
    sequence.state = SequenceState::kRunning;
    sequence.micro_batch = micro_batch;
    sequence.slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[static_cast<size_t>(sequence.slot)] = &sequence;
    const auto by_age = [](const Sequence* a, const Sequence* b) { return a->id < b->id; };
    running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, by_age),
                    &sequence);
    plan.starts.push_back({.slot = sequence.slot,
                           .sampling = sequence.sampling,
                           .num_prompt_tokens = sequence.num_prompt_tokens});
    append_step(sequence, num_tokens, /*starts=*/true, budget, plan);
  }
}

// The whole prompt must fit, and one more block for each running sequence: else the newcomer would
// be preempted by the growth of the others within a few steps.
bool Scheduler::can_admit(const Sequence& sequence) const {
  return allocator_.num_free() >=
         blocks_for(sequence.num_tokens()) + static_cast<int32_t>(running_.size());
}

int32_t Scheduler::blocks_for(int32_t num_tokens) const {
  return ceil_div(num_tokens, config_.block_size);
}

int32_t Scheduler::chunk_tokens(const Sequence& sequence, const Budget& budget) const {
  int32_t num_tokens = std::min(remaining_tokens(sequence), budget.tokens - budget.decode_tokens);
  const ScoreRange scores = unscored(sequence, sequence.num_cached_tokens, num_tokens);
  if (scores.count > budget.score_rows) {  // the chunk ends before the first row that does not fit
    num_tokens = scores.begin + budget.score_rows - sequence.num_cached_tokens;
  }
  return std::max(num_tokens, 0);
}

bool Scheduler::reserve_blocks(Sequence& sequence, int32_t num_tokens) {
  while (static_cast<int32_t>(sequence.blocks.size()) < blocks_for(num_tokens)) {
    const std::optional<BlockId> block = allocator_.allocate(sequence.blocks);
    if (!block) return false;
    sequence.blocks.push_back(*block);
  }
  return true;
}

// Blocks for `num_tokens` more tokens of a running sequence, from the youngest ones if need be.
Scheduler::Room Scheduler::make_room(Sequence& sequence, int32_t num_tokens) {
  while (!reserve_blocks(sequence, sequence.num_cached_tokens + num_tokens)) {
    Sequence& youngest = *running_.back();
    sequence.is_starved = youngest.is_in_step || !leftovers_.empty();
    if (sequence.is_starved) return Room::kMustWait;
    const bool is_own = &youngest == &sequence;
    preempt(youngest);
    if (is_own) return Room::kPreemptedItself;
  }
  sequence.is_starved = false;
  return Room::kMade;
}

std::vector<Scheduler::Load> Scheduler::loads() const {
  std::vector<Load> loads(static_cast<size_t>(config_.num_micro_batches));
  for (const Sequence* sequence : running_) {
    Load& load = loads[static_cast<size_t>(sequence->micro_batch)];
    ++load.num_sequences;
    load.num_context_tokens += sequence->num_tokens();
  }
  return loads;
}

Scheduler::Load Scheduler::load() const {
  Load sum;
  for (const Load& part : loads()) {
    sum.num_sequences += part.num_sequences;
    sum.num_context_tokens += part.num_context_tokens;
  }
  return sum;
}

void Scheduler::set_active(int32_t num_micro_batches) {
  LAMINA_CHECK(num_micro_batches >= 1 && num_micro_batches <= config_.num_micro_batches);
  num_active_ = num_micro_batches;
}

// By sequences, which cost the model, and by context, which costs attention: each as a share of
// what runs.
double Scheduler::weight_of(const Load& part, const Load& all) {
  return static_cast<double>(part.num_sequences) / static_cast<double>(all.num_sequences) +
         static_cast<double>(part.num_context_tokens) / static_cast<double>(all.num_context_tokens);
}

std::vector<double> Scheduler::weights() const {
  const std::vector<Load> parts = loads();
  std::vector<double> weights(parts.size(), 0.0);
  if (running_.empty()) return weights;
  const Load all = load();
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = weight_of(parts[i], all);
  return weights;
}

// A newcomer joins the lightest micro-batch; those that differ by less than half of it count as
// equal, for whichever has just ended a step is always the heavier by that step's tokens.
bool Scheduler::may_join(const Sequence& newcomer, int32_t micro_batch) const {
  if (num_active_ == 1 || running_.empty()) return true;
  const std::vector<double> all = weights();
  const double lightest = *std::min_element(all.begin(), all.begin() + num_active_);
  const double half = weight_of({1, newcomer.num_tokens()}, load()) / 2;
  return all[static_cast<size_t>(micro_batch)] < lightest + half;
}

void Scheduler::share_out() {
  if (running_.empty() || config_.num_micro_batches == 1) return;
  std::vector<double> all = weights();
  const Load total = load();
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& sequence = *running_[i];
    if (sequence.is_in_step) continue;
    double& own = all[static_cast<size_t>(sequence.micro_batch)];
    const auto lightest = std::min_element(all.begin(), all.begin() + num_active_);
    const double moved = weight_of({1, sequence.num_tokens()}, total);
    const bool must_go = sequence.micro_batch >= num_active_;
    if (!must_go && *lightest + moved >= own) continue;
    own -= moved;
    *lightest += moved;
    sequence.micro_batch = static_cast<int32_t>(lightest - all.begin());
  }
}

void Scheduler::append_step(
    Sequence& sequence, int32_t num_tokens, bool starts, Budget& budget, StepPlan& plan) {
  const ScoreRange scores = unscored(sequence, sequence.num_cached_tokens, num_tokens);
  const bool reaches_end = sequence.num_cached_tokens + num_tokens == sequence.num_tokens();
  SequenceStep step{.slot = sequence.slot,
                    .first_position = sequence.num_cached_tokens,
                    .num_tokens = num_tokens,
                    .tokens = {sequence.tokens.begin() + sequence.num_cached_tokens,
                               sequence.tokens.begin() + sequence.num_cached_tokens + num_tokens},
                    .new_blocks = {sequence.blocks.begin() + sequence.num_blocks_announced,
                                   sequence.blocks.end()},
                    .starts = starts,
                    .samples = reaches_end && sequence.num_tokens() < sequence.max_total_tokens,
                    .score_begin = scores.begin,
                    .num_scored = scores.count,
                    .score_targets = {}};
  if (scores.count > 0) {
    const auto first = sequence.tokens.begin() + scores.begin + 1;
    step.score_targets.assign(first, first + scores.count);
  }
  sequence.num_blocks_announced = static_cast<int32_t>(sequence.blocks.size());
  sequence.is_in_step = true;
  budget.tokens -= num_tokens;
  budget.score_rows -= scores.count;
  plan.sequences.push_back(std::move(step));
}

void Scheduler::complete(int32_t micro_batch,
                         const StepPlan& plan,
                         const std::vector<SequenceOutput>& outputs) {
  LAMINA_CHECK_EQ(plan.sequences.size(), outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const SequenceStep& step = plan.sequences[i];
    Sequence* sequence = in_slot(step.slot);
    if (sequence == nullptr) continue;  // it was removed meanwhile
    sequence->is_in_step = false;
    sequence->num_cached_tokens += step.num_tokens;
    if (step.num_scored > 0) sequence->num_scored = step.score_begin + step.num_scored;
    if (outputs[i].sampled) sequence->tokens.push_back(outputs[i].token.id);
  }
  free_leftovers(micro_batch);
}

void Scheduler::free_leftovers(int32_t micro_batch) {
  for (const Leftover& leftover : leftovers_) {
    if (leftover.micro_batch != micro_batch) continue;
    allocator_.free(leftover.blocks);
    free_slots_.push_back(leftover.slot);
    released_slots_.push_back(leftover.slot);
  }
  std::erase_if(leftovers_, [&](const Leftover& l) { return l.micro_batch == micro_batch; });
}

void Scheduler::release(Sequence& sequence) {
  if (sequence.is_in_step) {
    leftovers_.push_back({sequence.micro_batch, sequence.slot, std::move(sequence.blocks)});
  } else {
    allocator_.free(sequence.blocks);
    free_slots_.push_back(sequence.slot);
    released_slots_.push_back(sequence.slot);
  }
  sequence.blocks.clear();
  sequence.is_in_step = sequence.is_starved = false;
  sequence.num_blocks_announced = 0;
  sequence.num_cached_tokens = 0;
  slots_[static_cast<size_t>(sequence.slot)] = nullptr;
  sequence.slot = sequence.micro_batch = -1;
  std::erase(running_, &sequence);
}

void Scheduler::preempt(Sequence& sequence) {
  release(sequence);
  sequence.state = SequenceState::kWaiting;
  waiting_.push_front(&sequence);
  ++num_preemptions_;
}

void Scheduler::preempt_all() {
  for (int32_t i = 0; i < config_.num_micro_batches; ++i) free_leftovers(i);
  for (Sequence* sequence : running_) sequence->is_in_step = false;
  while (!running_.empty()) preempt(*running_.back());
  released_slots_.clear();  // the workers forgot them already
}

void Scheduler::resize(const BlockLanes& blocks) {
  LAMINA_CHECK(running_.empty());
  config_.blocks = blocks;
  config_.validate();
  allocator_ = BlockAllocator(blocks);
}

}  // namespace lamina
