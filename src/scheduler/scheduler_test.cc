#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "base/rng.h"
#include "kv/block_table.h"

namespace lamina {
namespace {

// Stands in for the workers: keeps what they would keep, checks every plan against it, and
// "samples" a token that is a function of the tokens before it, so that a recomputed sequence must
// give the same ones.
class FakeWorkers {
 public:
  FakeWorkers(const SchedulerConfig& config, int32_t max_blocks)
      : config_(config), tables_(config.max_num_seqs, max_blocks, config.blocks.total()) {}

  static int32_t next_token(const std::vector<int32_t>& tokens) {
    uint64_t hash = tokens.size();
    for (const int32_t token : tokens)
      hash = Rng(hash * 31 + static_cast<uint64_t>(token)).next_u64();
    return static_cast<int32_t>(hash % 1000);
  }

  std::vector<SequenceOutput> run(const StepPlan& plan) {
    for (const int32_t slot : plan.released_slots) {
      EXPECT_TRUE(tables_.clear(slot).ok());
      slots_.erase(slot);
    }
    for (const SequenceStart& start : plan.starts) slots_[start.slot] = {};
    EXPECT_LE(plan.num_tokens(), config_.max_num_batched_tokens);
    int32_t logits_rows = 0;
    std::vector<SequenceOutput> outputs;
    for (const SequenceStep& step : plan.sequences) {
      logits_rows += step.num_scored + (step.samples ? 1 : 0);
      outputs.push_back(run_sequence(step));
    }
    EXPECT_LE(logits_rows, config_.max_logits_rows);
    return outputs;
  }

 private:
  struct Slot {
    std::vector<int32_t> tokens;
    int32_t num_cached = 0;
  };

  SequenceOutput run_sequence(const SequenceStep& step) {
    if (step.starts) {
      EXPECT_TRUE(tables_.clear(step.slot).ok());
    }
    EXPECT_TRUE(tables_.append(step.slot, step.new_blocks).ok()) << "slot " << step.slot;
    Slot& slot = slots_.at(step.slot);
    EXPECT_EQ(step.first_position, slot.num_cached);
    EXPECT_GT(step.num_tokens, 0);
    EXPECT_EQ(static_cast<size_t>(step.num_tokens), step.tokens.size());
    for (size_t i = 0; i < step.tokens.size(); ++i) {
      const size_t position = static_cast<size_t>(slot.num_cached) + i;
      if (position < slot.tokens.size()) {
        EXPECT_EQ(step.tokens[i], slot.tokens[position]);  // what was sampled comes back
      } else {
        slot.tokens.push_back(step.tokens[i]);
      }
    }
    slot.num_cached += step.num_tokens;
    EXPECT_LE(slot.num_cached, static_cast<int32_t>(slot.tokens.size()));
    EXPECT_LE(slot.num_cached,
              static_cast<int32_t>(tables_.blocks(step.slot).size()) * config_.block_size);
    SequenceOutput output{.slot = step.slot};
    EXPECT_EQ(static_cast<size_t>(step.num_scored), step.score_targets.size());
    for (const int32_t target : step.score_targets) output.prompt_scores.push_back({.id = target});
    if (step.samples) {
      EXPECT_EQ(slot.num_cached, static_cast<int32_t>(slot.tokens.size()));
      output.sampled = true;
      output.token.id = next_token(slot.tokens);
      slot.tokens.push_back(output.token.id);
    }
    return output;
  }

  SchedulerConfig config_;
  BlockTables tables_;
  std::map<int32_t, Slot> slots_;
};

std::unique_ptr<Sequence> make_sequence(uint64_t id, int32_t num_prompt, int32_t max_tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  for (int32_t i = 0; i < num_prompt; ++i) sequence->tokens.push_back(static_cast<int32_t>(id) + i);
  sequence->num_prompt_tokens = num_prompt;
  sequence->max_total_tokens = num_prompt + max_tokens;
  return sequence;
}

std::vector<int32_t> expected_tokens(const Sequence& sequence) {
  std::vector<int32_t> tokens(sequence.tokens.begin(),
                              sequence.tokens.begin() + sequence.num_prompt_tokens);
  while (static_cast<int32_t>(tokens.size()) < sequence.max_total_tokens) {
    tokens.push_back(FakeWorkers::next_token(tokens));
  }
  return tokens;
}

const SchedulerConfig kSmall{.blocks = {{8}},
                             .block_size = 4,
                             .max_num_seqs = 3,
                             .max_num_batched_tokens = 8,
                             .max_logits_rows = 5};

TEST(Scheduler, ChunksPrefillAndLetsDecodingGoFirst) {
  Scheduler scheduler(kSmall);
  FakeWorkers workers(kSmall, 8);
  const auto first = make_sequence(1, 3, 4);
  const auto second = make_sequence(2, 14, 2);
  scheduler.add(first.get());
  StepPlan plan = scheduler.schedule(0);
  ASSERT_EQ(plan.sequences.size(), 1U);
  EXPECT_EQ(plan.sequences[0].num_tokens, 3);
  EXPECT_TRUE(plan.sequences[0].samples);
  scheduler.complete(0, plan, workers.run(plan));
  scheduler.add(second.get());
  plan = scheduler.schedule(0);  // one token decodes, seven of the second prompt fill the budget
  ASSERT_EQ(plan.sequences.size(), 2U);
  EXPECT_EQ(plan.sequences[0].num_tokens, 1);
  EXPECT_EQ(plan.sequences[1].num_tokens, 7);
  EXPECT_FALSE(plan.sequences[1].samples);
  scheduler.complete(0, plan, workers.run(plan));
  plan = scheduler.schedule(0);
  EXPECT_EQ(plan.sequences[1].first_position, 7);
  EXPECT_TRUE(plan.sequences[1].samples);
}

TEST(Scheduler, PreemptsTheYoungestAndRecomputesIt) {
  Scheduler scheduler(kSmall);
  FakeWorkers workers(kSmall, 8);
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (uint64_t id = 1; id <= 3; ++id)
    sequences.push_back(make_sequence(id, 2, 18));  // 5 blocks each, 8 in all
  for (const auto& sequence : sequences) scheduler.add(sequence.get());
  size_t num_done = 0;
  for (int step = 0; step < 200 && num_done < sequences.size(); ++step) {
    const StepPlan plan = scheduler.schedule(0);
    ASSERT_FALSE(plan.empty());
    scheduler.complete(0, plan, workers.run(plan));
    for (const auto& sequence : sequences) {
      if (sequence->state == SequenceState::kRunning && sequence->is_complete()) {
        EXPECT_EQ(sequence->tokens, expected_tokens(*sequence));
        scheduler.remove(sequence.get());
        ++num_done;
      }
    }
  }
  EXPECT_EQ(num_done, 3U);
  EXPECT_GT(scheduler.num_preemptions(), 0U);
  EXPECT_EQ(scheduler.blocks().num_used(), 0);
}

TEST(Scheduler, ScoresEveryPromptTokenOnce) {
  Scheduler scheduler(kSmall);
  FakeWorkers workers(kSmall, 8);
  const auto sequence = make_sequence(1, 9, 0);  // echo with logprobs, nothing generated
  sequence->wants_prompt_scores = true;
  scheduler.add(sequence.get());
  std::vector<int32_t> scored;
  while (!sequence->is_complete()) {
    const StepPlan plan = scheduler.schedule(0);
    ASSERT_EQ(plan.sequences.size(), 1U);
    EXPECT_LE(plan.sequences[0].num_scored, 2);  // max_logits_rows - max_num_seqs
    const auto outputs = workers.run(plan);
    for (const ScoredToken& token : outputs[0].prompt_scores) scored.push_back(token.id);
    EXPECT_FALSE(outputs[0].sampled);
    scheduler.complete(0, plan, outputs);
  }
  EXPECT_EQ(scored, std::vector<int32_t>(sequence->tokens.begin() + 1, sequence->tokens.end()));
}

TEST(Scheduler, StartsOverAfterTheWorkersLostTheirState) {
  Scheduler scheduler(kSmall);
  const auto sequence = make_sequence(1, 3, 4);
  scheduler.add(sequence.get());
  {
    FakeWorkers workers(kSmall, 8);
    const StepPlan plan = scheduler.schedule(0);
    scheduler.complete(0, plan, workers.run(plan));
  }
  scheduler.preempt_all();
  scheduler.resize({{4}});
  SchedulerConfig smaller = kSmall;
  smaller.blocks = {{4}};
  FakeWorkers workers(smaller, 4);
  while (!sequence->is_complete()) {
    const StepPlan plan = scheduler.schedule(0);
    scheduler.complete(0, plan, workers.run(plan));
  }
  EXPECT_EQ(sequence->tokens, expected_tokens(*sequence));
}

TEST(Scheduler, RefusesImpossibleConfigurations) {
  SchedulerConfig config = kSmall;
  config.max_num_batched_tokens = 2;
  EXPECT_THROW(Scheduler{config}, Error);
  config = kSmall;
  config.max_logits_rows = 3;
  EXPECT_THROW(Scheduler{config}, Error);
}

// Any mix of arrivals, cancellations and shortage: every sequence ends with the right tokens and no
// block is lost.
TEST(Scheduler, NeverDeadlocksOrLeaksUnderRandomLoad) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    SchedulerConfig config = kSmall;
    config.blocks = {{6 + static_cast<int32_t>(rng.next_below(10))}};
    Scheduler scheduler(config);
    FakeWorkers workers(config, config.blocks.total());
    std::vector<std::unique_ptr<Sequence>> alive;
    uint64_t next_id = 1;
    int steps_without_arrivals = 0;
    while (next_id < 20 || !alive.empty()) {
      ASSERT_LT(steps_without_arrivals, 2000);
      if (next_id < 20 && rng.next_below(3) == 0) {
        const auto prompt = static_cast<int32_t>(1 + rng.next_below(12));
        auto sequence = make_sequence(next_id++, prompt, static_cast<int32_t>(rng.next_below(12)));
        sequence->wants_prompt_scores = rng.next_below(4) == 0;
        scheduler.add(sequence.get());
        alive.push_back(std::move(sequence));
        steps_without_arrivals = 0;
      }
      ++steps_without_arrivals;
      const StepPlan plan = scheduler.schedule(0);
      ASSERT_TRUE(!plan.empty() || alive.empty())
          << "nothing runs though " << alive.size() << " sequences wait";
      scheduler.complete(0, plan, workers.run(plan));
      std::erase_if(alive, [&](const std::unique_ptr<Sequence>& sequence) {
        const bool is_done = sequence->is_complete();
        if (is_done) {
          EXPECT_EQ(sequence->tokens, expected_tokens(*sequence));
        }
        if (!is_done && rng.next_below(40) != 0) return false;
        scheduler.remove(sequence.get());
        return true;
      });
      if (rng.next_below(200) == 0) {
        scheduler.preempt_all();
        workers = FakeWorkers(config, config.blocks.total());
      }
    }
    EXPECT_EQ(scheduler.blocks().num_used(), 0);
  }
}

// Micro-batches share blocks and slots; steps overlap at random, sequences come, are removed in the
// middle of a step, and the number of active micro-batches changes. Every sequence gets the tokens
// that it would get alone, and in the end every block is free.
TEST(Scheduler, MicroBatchesNeverDisturbEachOther) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Rng rng(seed);
    SchedulerConfig config = kSmall;
    config.num_micro_batches = 1 + static_cast<int32_t>(rng.next_below(4));
    config.blocks = {{8 + static_cast<int32_t>(rng.next_below(12))}};
    Scheduler scheduler(config);
    FakeWorkers workers(config, config.blocks.total());
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<std::optional<StepPlan>> plans(static_cast<size_t>(config.num_micro_batches));
    std::vector<std::vector<SequenceOutput>> outputs(plans.size());
    const auto most = static_cast<uint64_t>(config.blocks.total() * config.block_size);
    size_t num_done = 0;
    size_t num_removed = 0;
    for (int round = 0; num_done + num_removed < 12; ++round) {
      ASSERT_LT(round, 20000) << "seed " << seed << " does not end";
      if (sequences.size() < 12 && rng.next_below(3) == 0) {
        const auto num_prompt = static_cast<int32_t>(1 + rng.next_below(most / 2));
        const auto num_tokens = static_cast<int32_t>(1 + rng.next_below(most / 2 - 1));
        sequences.push_back(make_sequence(sequences.size() + 1, num_prompt, num_tokens));
        scheduler.add(sequences.back().get());
      }
      if (rng.next_below(20) == 0) {
        scheduler.set_active(1 + static_cast<int32_t>(rng.next_below(plans.size())));
      }
      if (rng.next_below(40) == 0 && !sequences.empty()) {
        Sequence& victim = *sequences[rng.next_below(sequences.size())];
        if (victim.state != SequenceState::kRemoved) {
          scheduler.remove(&victim);
          ++num_removed;
        }
      }
      const auto batch = static_cast<int32_t>(rng.next_below(plans.size()));
      std::optional<StepPlan>& plan = plans[static_cast<size_t>(batch)];
      if (!plan) {
        scheduler.share_out();
        StepPlan next = scheduler.schedule(batch);
        if (next.empty()) continue;
        // The workers get plans in the order in which they were made.
        outputs[static_cast<size_t>(batch)] = workers.run(next);
        plan = std::move(next);
        continue;
      }
      scheduler.complete(batch, *plan, outputs[static_cast<size_t>(batch)]);
      for (const SequenceStep& step : plan->sequences) {
        Sequence* sequence = scheduler.in_slot(step.slot);
        if (sequence == nullptr || !sequence->is_complete()) continue;
        ASSERT_EQ(sequence->tokens, expected_tokens(*sequence)) << "seed " << seed;
        scheduler.remove(sequence);
        ++num_done;
      }
      plan.reset();
    }
    for (size_t i = 0; i < plans.size(); ++i) {
      if (plans[i]) scheduler.complete(static_cast<int32_t>(i), *plans[i], outputs[i]);
    }
    EXPECT_EQ(scheduler.blocks().num_used(), 0) << "seed " << seed;
  }
}

TEST(Scheduler, KeepsMicroBatchesEqual) {
  SchedulerConfig config = kSmall;
  config.blocks = {{400}};
  config.num_micro_batches = 2;
  config.max_num_seqs = 16;
  config.max_num_batched_tokens = 64;
  config.max_logits_rows = 40;
  Scheduler scheduler(config);
  FakeWorkers workers(config, 400);
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (uint64_t id = 1; id <= 12; ++id) {
    sequences.push_back(make_sequence(id, 4 + static_cast<int32_t>(id % 3), 40));
    scheduler.add(sequences.back().get());
  }
  const auto run_round = [&] {
    scheduler.share_out();
    for (const int32_t batch : {0, 1}) {
      const StepPlan plan = scheduler.schedule(batch);
      if (!plan.empty()) scheduler.complete(batch, plan, workers.run(plan));
    }
  };
  for (int i = 0; i < 10; ++i) run_round();
  EXPECT_NEAR(scheduler.loads()[0].num_sequences, 6, 1);
  EXPECT_EQ(scheduler.running().size(), 12U);
  for (const auto& sequence : sequences) {  // the first micro-batch loses all but one
    if (sequence->micro_batch == 0 && scheduler.loads()[0].num_sequences > 1) {
      scheduler.remove(sequence.get());
    }
  }
  for (int i = 0; i < 2; ++i) run_round();
  EXPECT_LE(std::abs(scheduler.loads()[0].num_sequences - scheduler.loads()[1].num_sequences), 1);
  scheduler.set_active(1);
  for (int i = 0; i < 2; ++i) run_round();
  EXPECT_EQ(scheduler.loads()[1].num_sequences, 0);
  EXPECT_EQ(scheduler.loads()[0].num_sequences, static_cast<int32_t>(scheduler.running().size()));
}

// A micro-batch that is planned before another is shared out must not miss what moves to it.
TEST(Scheduler, SequencesThatMoveAreInTheNextRound) {
  SchedulerConfig config = kSmall;
  config.num_micro_batches = 2;
  Scheduler scheduler(config);
  FakeWorkers workers(config, 8);
  const auto a = make_sequence(1, 3, 4);
  const auto b = make_sequence(2, 3, 4);
  scheduler.add(a.get());
  StepPlan first = scheduler.schedule(0);
  scheduler.add(b.get());
  StepPlan second = scheduler.schedule(1);
  ASSERT_EQ(b->micro_batch, 1);
  scheduler.remove(a.get());
  scheduler.complete(0, first, workers.run(first));
  scheduler.set_active(1);
  scheduler.share_out();
  EXPECT_TRUE(scheduler.schedule(0).empty());  // it is in a step
  scheduler.complete(1, second, workers.run(second));
  scheduler.share_out();
  EXPECT_EQ(scheduler.schedule(0).num_tokens(), 1);
}

// Micro-batches end their steps in turn, so one is always some tokens ahead: that must not keep
// newcomers out.
TEST(Scheduler, AdmitsWhileStepsOverlap) {
  SchedulerConfig config = kSmall;
  config.blocks = {{1000}};
  config.num_micro_batches = 2;
  config.max_num_seqs = 20;
  config.max_num_batched_tokens = 64;
  config.max_logits_rows = 40;
  Scheduler scheduler(config);
  FakeWorkers workers(config, 1000);
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (uint64_t id = 1; id <= 20; ++id) {
    sequences.push_back(make_sequence(id, 10, 60));
    scheduler.add(sequences.back().get());
  }
  std::vector<StepPlan> plans(2);
  std::vector<std::vector<SequenceOutput>> outputs(2);
  for (int i = 0; i < 40; ++i) {
    const int32_t batch = i % 2;
    const auto idx = static_cast<size_t>(batch);
    if (i >= 2 && !plans[idx].empty()) scheduler.complete(batch, plans[idx], outputs[idx]);
    scheduler.share_out();
    plans[idx] = scheduler.schedule(batch);
    outputs[idx] = workers.run(plans[idx]);
  }
  EXPECT_EQ(scheduler.running().size(), 20U);
  EXPECT_EQ(scheduler.loads()[0].num_sequences, 10);
}

}  // namespace
}  // namespace lamina
