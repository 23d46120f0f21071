#include "plan/kv_budget.h"

#include <gtest/gtest.h>

#include <array>

namespace lamina {
namespace {

// 2 layers x 2 (K, V) x 4 heads x 16 tokens x 8 x 2 bytes = 4096 bytes a block, 1024 a head.
const KvLayout kLayout{.num_layers = 2,
                       .num_kv_heads = 4,
                       .head_dim = 8,
                       .value_dim = 8,
                       .block_size = 16,
                       .dtype = DType::kBF16};

TEST(KvBudget, TheTightestWorkerDecides) {
  const std::array<WorkerKvShare, 2> shares = {WorkerKvShare{"a", 30 * 1024, 3},
                                               WorkerKvShare{"b", 7 * 1024, 1}};
  EXPECT_EQ(*plan_num_blocks(kLayout, shares, 1, 1000), 7);
  EXPECT_EQ(*plan_num_blocks(kLayout, shares, 1, 5), 5);
}

TEST(KvBudget, SaysWhichWorkerIsTooSmall) {
  const std::array<WorkerKvShare, 1> shares = {WorkerKvShare{"box:7", 3 * 4096, 4}};
  const auto result = plan_num_blocks(kLayout, shares, 4, 1000);
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("box:7"), std::string::npos);
}

}  // namespace
}  // namespace lamina
