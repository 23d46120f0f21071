// Partials of several sources, of some heads or some keys each, against their sum over all keys.
#include "transport/cuda_p2p/merge.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "base/rng.h"
#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/slots.h"
#include "transport/device_link.h"

namespace lamina::cuda_p2p {
namespace {

constexpr uint32_t kTokens = 3;
constexpr uint32_t kHeads = 4;
constexpr uint32_t kDim = 8;
constexpr MergeShape kShape{.num_tokens = kTokens, .num_heads = kHeads, .row_chunks = kDim / 4};
constexpr Stamp kBase = make_stamp(3, 100);

// A partial of heads [begin, end), and where it is sent.
struct Part {
  Part(uint32_t begin, uint32_t end, const Limits& limits, Rng& rng)
      : head_begin(begin), head_end(end), plan(make_plan(size_bytes(), limits)) {
    const std::vector<uint32_t> capacities = {size_bytes()};
    memory.resize(region_bytes(capacities, limits) / sizeof(SlotWords) + 1);
    slot = slot_views(reinterpret_cast<std::byte*>(memory.data()), capacities, limits)[0];
    values.resize(size_t{plan.num_chunks} * 4);
    for (float& value : values) value = 4.0F * rng.next_float() - 2.0F;
  }
  [[nodiscard]] uint32_t num_rows() const { return kTokens * (head_end - head_begin); }
  [[nodiscard]] uint32_t size_bytes() const { return partial_bytes(num_rows(), kDim); }
  [[nodiscard]] uint32_t row(uint32_t token, uint32_t head) const {
    return token * (head_end - head_begin) + head - head_begin;
  }
  [[nodiscard]] float out(uint32_t token, uint32_t head, uint32_t i) const {
    return values[size_t{row(token, head)} * kDim + i];
  }
  float& lse(uint32_t token, uint32_t head) {
    return values[size_t{num_rows()} * kDim + row(token, head)];
  }
  void send(uint32_t use) const {
    send_message<HostMemory>(
        OneThread(), slot, plan, kBase + use, nullptr, [&](uint32_t i, auto& unit) {
          std::memcpy(&unit, &values[i * (sizeof(unit) / sizeof(float))], sizeof(unit));
        });
  }

  uint32_t head_begin;
  uint32_t head_end;
  Plan plan;
  std::vector<SlotWords> memory;
  SlotView slot;
  std::vector<float> values;  // rows, then their lse
};

struct Merged {
  float out[kTokens][kHeads][kDim] = {};
  float lse[kTokens][kHeads] = {};
};

bool merge(const std::vector<Part>& parts,
           const StepView& step,
           Merged& merged,
           const MergeShape& shape = kShape) {
  std::vector<PartialSource> sources;
  for (const Part& part : parts) {
    sources.push_back({.slot = part.slot,
                       .plan = part.plan,
                       .use = static_cast<uint32_t>(sources.size()) + 1,
                       .head_begin = part.head_begin,
                       .head_end = part.head_end});
  }
  return merge_messages<HostMemory>(
      OneThread(),
      sources.data(),
      static_cast<uint32_t>(sources.size()),
      shape,
      step,
      kBase,
      [&](uint32_t element, const PartialChunk& chunk) {
        std::memcpy(&merged.out[0][0][0] + size_t{element} * 4, chunk.out, sizeof(chunk.out));
        (&merged.lse[0][0])[element / kShape.row_chunks] = chunk.lse;
      });
}

// In double, by the definition.
void expect_sum(std::vector<Part>& parts, const Merged& merged) {
  for (uint32_t token = 0; token < kTokens; ++token) {
    for (uint32_t head = 0; head < kHeads; ++head) {
      double total = 0.0;
      double sums[kDim] = {};
      for (Part& part : parts) {
        if (head < part.head_begin || head >= part.head_end) continue;
        const double weight = std::exp(static_cast<double>(part.lse(token, head)));
        total += weight;
        for (uint32_t i = 0; i < kDim; ++i) sums[i] += weight * part.out(token, head, i);
      }
      EXPECT_NEAR(merged.lse[token][head], std::log(total), 1e-5);
      for (uint32_t i = 0; i < kDim; ++i) {
        EXPECT_NEAR(merged.out[token][head][i], sums[i] / total, 1e-5) << token << ' ' << head;
      }
    }
  }
}

class Merging : public testing::TestWithParam<uint32_t> {
 protected:
  Limits limits_{.lines_bytes = GetParam(), .lines_part_bytes = 64, .pushed_part_bytes = 64};
  Rng rng_{7};
  StepState state_{.base = kBase};
  StepControl control_{};
  StepView step_{&state_, &control_, 60'000'000'000};
};

INSTANTIATE_TEST_SUITE_P(Forms, Merging, testing::Values(4096, 0), [](const auto& tested) {
  return tested.param > 0 ? "lines" : "pushed";
});

TEST_P(Merging, SumsOverKeysAndJoinsHeads) {
  std::vector<Part> parts;
  for (const auto& [begin, end] : {std::pair{0U, 2U}, {0U, 4U}, {2U, 4U}, {1U, 2U}}) {
    parts.emplace_back(begin, end, limits_, rng_);
  }
  parts[0].lse(1, 1) = -INFINITY;
  parts[1].lse(2, 3) = -INFINITY;
  Merged merged;
  // The last comes first.
  std::thread sender([&] {
    for (uint32_t i = 4; i > 0; --i) parts[i - 1].send(i);
  });
  EXPECT_TRUE(merge(parts, step_, merged));
  sender.join();
  expect_sum(parts, merged);
}

TEST_P(Merging, KeepsTheBitsOfTheOnlySource) {
  std::vector<Part> parts;
  parts.emplace_back(0U, kHeads, limits_, rng_);
  parts.emplace_back(0U, kHeads, limits_, rng_);
  for (uint32_t i = 0; i < kTokens * kHeads; ++i) parts[1].lse(i / kHeads, i % kHeads) = -INFINITY;
  parts[0].send(1);
  parts[1].send(2);
  Merged merged;
  EXPECT_TRUE(merge(parts, step_, merged));
  EXPECT_EQ(std::memcmp(merged.out, parts[0].values.data(), sizeof(merged.out)), 0);
  EXPECT_EQ(merged.lse[2][3], parts[0].lse(2, 3));
}

// As if a source had their scores and values of zero.
TEST_P(Merging, CountsSinksOnce) {
  const float sinks[kHeads] = {0.5F, -INFINITY, 2.0F, -1.0F};
  MergeShape shape = kShape;
  shape.sinks = sinks;
  std::vector<Part> parts;
  parts.emplace_back(0U, kHeads, limits_, rng_);
  parts.emplace_back(0U, 2U, limits_, rng_);
  for (uint32_t i = 0; i < parts.size(); ++i) parts[i].send(i + 1);
  Merged merged;
  EXPECT_TRUE(merge(parts, step_, merged, shape));
  Part& of_sinks = parts.emplace_back(0U, kHeads, limits_, rng_);
  for (float& value : of_sinks.values) value = 0.0F;
  for (uint32_t i = 0; i < kTokens * kHeads; ++i) {
    of_sinks.lse(i / kHeads, i % kHeads) = sinks[i % kHeads];
  }
  expect_sum(parts, merged);
}

TEST_P(Merging, LeavesHeadsOfNobodyAlone) {
  std::vector<Part> parts;
  parts.emplace_back(0U, 1U, limits_, rng_);
  parts.emplace_back(2U, 4U, limits_, rng_);
  for (uint32_t i = 0; i < parts.size(); ++i) parts[i].send(i + 1);
  Merged merged;
  for (auto& of_token : merged.out) of_token[1][0] = 7.0F;
  EXPECT_TRUE(merge(parts, step_, merged));
  for (uint32_t token = 0; token < kTokens; ++token) {
    EXPECT_EQ(merged.out[token][0][0], parts[0].out(token, 0, 0));
    EXPECT_EQ(merged.out[token][1][0], 7.0F);
    EXPECT_EQ(merged.out[token][3][0], parts[1].out(token, 3, 0));
  }
}

TEST(MergeShape, PlacesElementsInRowsOfWhatever) {
  EXPECT_EQ(kShape.place_of(0, 100), 0U);
  const uint32_t element = (2 * kHeads + 3) * kShape.row_chunks + 1;
  EXPECT_EQ(kShape.place_of(element, 100), 2U * 100 + 3 * kDim + 4);
}

TEST_P(Merging, ASourceThatNeverComesIsAnError) {
  std::vector<Part> parts;
  parts.emplace_back(0U, kHeads, limits_, rng_);
  parts.emplace_back(0U, kHeads, limits_, rng_);
  parts[0].send(1);
  step_.max_wait_ns = 1'000'000;
  Merged merged;
  EXPECT_FALSE(merge(parts, step_, merged));
  EXPECT_EQ(static_cast<WaitError>(control_.error), WaitError::kTimedOut);
  EXPECT_EQ(control_.awaited, kBase + 2);
}

}  // namespace
}  // namespace lamina::cuda_p2p
