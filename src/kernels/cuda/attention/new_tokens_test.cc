#include "kernels/cuda/attention/new_tokens.h"

#include <gtest/gtest.h>

namespace lamina::kernels::cuda {
namespace {

TEST(NewTokens, StepsWithAFewOfASequenceHaveNone) {
  EXPECT_TRUE(has_single_tokens(std::vector<int32_t>{0}));
  EXPECT_TRUE(has_single_tokens(std::vector<int32_t>{0, 1, 1, 2}));
  EXPECT_FALSE(has_single_tokens(std::vector<int32_t>{0, 1, 3}));
}

TEST(NewTokens, LieWhereTheirSequencesEnd) {
  const std::vector<int32_t> query_begin = {0, 1, 1, 2, 3};
  const std::vector<int32_t> context_len = {17, 40, 16, 20};
  const std::vector<int32_t> tables = {5, 3, -1, 1, 2, 4, 7, -1, -1, 6, kNoBlock, -1};
  std::vector<NewToken> tokens(9);
  find_new_tokens({query_begin, context_len, tables, 3}, 16, tokens);
  ASSERT_EQ(tokens.size(), 3U);
  EXPECT_EQ(tokens[0].token, 0);
  EXPECT_EQ(tokens[0].position, 16);
  EXPECT_EQ(tokens[0].slot, 3 * 16);
  EXPECT_EQ(tokens[1].token, 1);
  EXPECT_EQ(tokens[1].position, 15);
  EXPECT_EQ(tokens[1].slot, 7 * 16 + 15);
  EXPECT_EQ(tokens[2].token, 2);
  EXPECT_EQ(tokens[2].position, 19);
  EXPECT_EQ(tokens[2].slot, kNoSlot);
}

}  // namespace
}  // namespace lamina::kernels::cuda
