// An attention worker's core on the CPU, whose tables are what steps before left: each step's
// outputs against those of a core that is told of all its sequences anew.
#include "worker/attention_core.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/test_tensors.h"
#include "worker/attention_core_testing.h"

namespace lamina {
namespace {

using kernels::TestTensor;

constexpr int32_t kHeadDim = 8;
constexpr int32_t kBlockSize = 4;
constexpr int32_t kMaxBlocks = 5;  // rows of tables are longer

AttentionCoreConfig config_of(int32_t max_sequences) {
  return {.kv = {.num_layers = 1,
                 .num_kv_heads = 1,
                 .head_dim = kHeadDim,
                 .value_dim = kHeadDim,
                 .block_size = kBlockSize,
                 .dtype = DType::kF32},
          .q_dtype = DType::kF32,
          .num_blocks = max_sequences * kMaxBlocks,
          .num_heads = 1,
          .max_sequences = max_sequences,
          .max_tokens = max_sequences * kMaxBlocks * kBlockSize,
          .max_blocks_per_sequence = kMaxBlocks,
          .overlap = false,
          .layers = {{.scale = 0.3F}}};
}

// Rows of one tensor, gathered.
struct Rows {
  std::vector<float> values;

  void add(const TestTensor& from, int64_t begin, int64_t count) {
    for (int64_t i = begin * kHeadDim; i < (begin + count) * kHeadDim; ++i) {
      values.push_back(from.at(i));
    }
  }
  void add_zeros(int64_t count) {
    values.resize(values.size() + static_cast<size_t>(count * kHeadDim), 0.0F);
  }
  void add(const Rows& other) {
    values.insert(values.end(), other.values.begin(), other.values.end());
  }
  [[nodiscard]] TestTensor tensor() const {
    TestTensor made(DType::kF32, {std::ssize(values) / kHeadDim, 1, kHeadDim});
    for (size_t i = 0; i < values.size(); ++i) made.set(static_cast<int64_t>(i), values[i]);
    return made;
  }
};

struct Sequence {
  Rows k;
  Rows v;
};

TestTensor attention_of(AttentionCore& core,
                        const wire::AttentionPlan& plan,
                        const TestTensor& q,
                        const TestTensor& k,
                        const TestTensor& v) {
  throw_if_error(core.begin_step(plan));
  EXPECT_EQ(core.num_tokens(0), q.view().shape[0]);
  throw_if_error(core.append(0, 0, k.view(), v.view()));
  TestTensor out(DType::kF32, q.view().shape);
  throw_if_error(core.attend(0, 0, q.view(), out.view()));
  return out;
}

// The plan's sequences with all their keys at once. Queries of old tokens are zeros, and their
// outputs are left out.
TestTensor anew(const wire::AttentionPlan& plan,
                const TestTensor& q,
                const std::vector<Sequence>& sequences,
                StreamView stream) {
  wire::AttentionPlan whole;
  Rows all_q;
  Rows all_k;
  Rows all_v;
  int64_t row = 0;
  for (const wire::SequenceEntry& entry : plan.sequences) {
    const uint32_t num_tokens = entry.first_position + entry.num_tokens;
    const uint32_t num_blocks = ceil_div(num_tokens, uint32_t{kBlockSize});
    whole.sequences.push_back(
        {.slot = entry.slot, .num_tokens = num_tokens, .num_new_blocks = num_blocks, .starts = 1});
    for (uint32_t i = 0; i < num_blocks; ++i) {
      whole.new_blocks.push_back(static_cast<BlockId>(whole.new_blocks.size()));
    }
    all_q.add_zeros(entry.first_position);
    all_q.add(q, row, entry.num_tokens);
    all_k.add(sequences[entry.slot].k);
    all_v.add(sequences[entry.slot].v);
    row += entry.num_tokens;
  }
  AttentionCore core(config_of(static_cast<int32_t>(sequences.size())), stream);
  const TestTensor out = attention_of(core, whole, all_q.tensor(), all_k.tensor(), all_v.tensor());
  Rows wanted;
  row = 0;
  for (const wire::SequenceEntry& entry : plan.sequences) {
    wanted.add(out, row + entry.first_position, entry.num_tokens);
    row += entry.first_position + entry.num_tokens;
  }
  return wanted.tensor();
}

TEST(AttentionCore, FollowsSequences) {
  constexpr int32_t kSlots = 4;
  ThreadPool pool(1);
  AttentionCore core(config_of(kSlots), StreamView(pool));
  RandomPlans plans(core.config(), 7);
  std::vector<Sequence> sequences(kSlots);
  Rng rng(8);
  for (int step = 0; step < 200; ++step) {
    const wire::AttentionPlan plan = plans.next();
    int64_t num_tokens = 0;
    for (const wire::SequenceEntry& entry : plan.sequences) num_tokens += entry.num_tokens;
    const Shape shape = {num_tokens, 1, kHeadDim};
    const TestTensor q = TestTensor::random(DType::kF32, shape, rng);
    const TestTensor k = TestTensor::random(DType::kF32, shape, rng);
    const TestTensor v = TestTensor::random(DType::kF32, shape, rng);
    int64_t row = 0;
    for (const wire::SequenceEntry& entry : plan.sequences) {
      Sequence& sequence = sequences[entry.slot];
      if (entry.starts != 0) sequence = {};
      sequence.k.add(k, row, entry.num_tokens);
      sequence.v.add(v, row, entry.num_tokens);
      row += entry.num_tokens;
    }
    const TestTensor out = attention_of(core, plan, q, k, v);
    kernels::expect_near(
        out, anew(plan, q, sequences, StreamView(pool)), 1.0F, fmt::format("step {}", step));
    if (HasFailure()) return;
  }
}

// A row that a sequence of this worker's blocks alone had before, and the other way round.
TEST(AttentionCore, TellsWhichStepsArePartial) {
  ThreadPool pool(1);
  AttentionCore core(config_of(2), StreamView(pool));
  wire::AttentionPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 6, .num_new_blocks = 2, .starts = 1}};
  plan.new_blocks = {kNoBlock, 1};
  ASSERT_TRUE(core.begin_step(plan).ok());
  EXPECT_TRUE(core.is_partial(0));
  EXPECT_EQ(core.num_new_keys(0), 2);
  EXPECT_EQ(core.num_blocks_used(), 1);

  plan.sequences = {{.slot = 1, .num_tokens = 6, .num_new_blocks = 2, .starts = 1}};
  plan.new_blocks = {2, 3};
  ASSERT_TRUE(core.begin_step(plan).ok());
  EXPECT_FALSE(core.is_partial(0));

  plan.sequences = {{.slot = 0, .first_position = 6, .num_tokens = 1}};
  plan.new_blocks = {};
  ASSERT_TRUE(core.begin_step(plan).ok());
  EXPECT_TRUE(core.is_partial(0));

  plan.sequences = {{.slot = 0, .num_tokens = 6, .num_new_blocks = 2, .starts = 1}};
  plan.new_blocks = {0, 1};
  ASSERT_TRUE(core.begin_step(plan).ok());
  EXPECT_FALSE(core.is_partial(0));
  EXPECT_EQ(core.num_blocks_used(), 4);
}

}  // namespace
}  // namespace lamina
