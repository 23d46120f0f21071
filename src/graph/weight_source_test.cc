#include "graph/weight_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace lamina {
namespace {

using ::testing::ElementsAreArray;

// Which element of the stored tensors each element of a source is, by walking it: what a loader
// must come to.
std::vector<int64_t> elements(const WeightSource& source) {
  std::vector<int64_t> found;
  for (const WeightPart& part : source) {
    const int64_t width = part.stored.rank() < 2 ? 1 : part.stored[-1];
    for (int64_t repeat = 0; repeat < part.rows.repeats; ++repeat) {
      for (int64_t i = 0; i < part.rows.count; ++i) {
        const int64_t row = part.rows.begin + repeat * part.rows.stride + i;
        for (int64_t c = part.column_begin; c < part.column_begin + part.num_columns; ++c) {
          const int64_t stored_row = part.matrix_begin + (part.transposed ? c : row);
          found.push_back(stored_row * width + (part.transposed ? row : c));
        }
      }
    }
  }
  return found;
}

std::vector<int64_t> row_elements(const std::vector<int64_t>& all,
                                  int64_t width,
                                  const std::vector<int64_t>& rows) {
  std::vector<int64_t> found;
  for (const int64_t row : rows) {
    found.insert(found.end(), all.begin() + row * width, all.begin() + (row + 1) * width);
  }
  return found;
}

TEST(WeightSourceTest, WholeAndTransposedTensors) {
  const WeightSource whole = whole_tensor("w", {2, 3});
  EXPECT_TRUE(is_whole_tensor(whole));
  EXPECT_THAT(elements(whole), ElementsAreArray({0, 1, 2, 3, 4, 5}));
  const WeightSource turned = transposed_tensor("w", {2, 3});
  EXPECT_FALSE(is_whole_tensor(turned));
  EXPECT_EQ(num_rows(turned), 3);
  EXPECT_EQ(num_columns(turned), 2);
  EXPECT_THAT(elements(turned), ElementsAreArray({0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(num_rows(whole_tensor("b", {7})), 7);
  EXPECT_THROW((void)transposed_tensor("b", {7}), Error);
  const WeightSource expert = transposed_rows("experts", {2, 2, 3}, 2, 2);
  EXPECT_THAT(elements(expert), ElementsAreArray({6, 9, 7, 10, 8, 11}));
  EXPECT_EQ(to_string(expert), "experts(2:4)^T");
  EXPECT_THROW((void)transposed_rows("experts", {2, 2, 3}, 3, 2), Error);
}

// Every consecutive range of a pattern of a pattern equals the same range of what it walks.
TEST(WeightSourceTest, TakingRowsAgreesWithWalkingThem) {
  const WeightSource heads = take_rows(whole_tensor("qkv", {36, 2}), {4, 3, 12, 3});
  const WeightSource source = stack(heads, whole_tensor("extra", {5, 2}));
  const std::vector<int64_t> all = elements(source);
  for (int64_t begin = 0; begin < num_rows(source); ++begin) {
    for (int64_t count = 1; begin + count <= num_rows(source); ++count) {
      std::vector<int64_t> rows;
      for (int64_t i = 0; i < count; ++i) rows.push_back(begin + i);
      EXPECT_THAT(elements(take_rows(source, {begin, count})),
                  ElementsAreArray(row_elements(all, 2, rows)))
          << begin << " " << count;
    }
  }
  EXPECT_THAT(elements(take_rows(source, {1, 2, 5, 2})),
              ElementsAreArray(row_elements(all, 2, {1, 2, 6, 7})));
}

TEST(WeightSourceTest, WholePeriodsStayOnePattern) {
  const WeightSource heads = take_rows(whole_tensor("qkv", {240, 2}), {0, 4, 12, 20});
  EXPECT_EQ(heads.size(), 1u);
  EXPECT_EQ(take_rows(heads, {0, 40}).size(), 1u);
  EXPECT_EQ(take_rows(heads, {2, 40}).size(), 3u);
}

TEST(WeightSourceTest, TakesColumnsOfEveryPart) {
  const WeightSource both = stack(whole_tensor("a", {2, 4}), transposed_tensor("b", {4, 1}));
  EXPECT_THAT(elements(take_columns(both, 1, 2)), ElementsAreArray({1, 2, 5, 6, 1, 2}));
  EXPECT_THAT(elements(take_columns(take_columns(both, 1, 3), 1, 1)), ElementsAreArray({2, 6, 2}));
}

TEST(WeightSourceTest, RefusesWhatLiesOutside) {
  const WeightSource source = whole_tensor("w", {6, 4});
  EXPECT_THROW((void)take_rows(source, {4, 3}), Error);
  EXPECT_THROW((void)take_rows(source, {-1, 3}), Error);
  EXPECT_THROW((void)take_rows(source, {0, 0}), Error);
  EXPECT_THROW((void)take_rows(source, {0, 2, 1, 2}), Error);
  EXPECT_THROW((void)take_columns(source, 3, 2), Error);
  EXPECT_THROW((void)stack(source, whole_tensor("v", {6, 5})), Error);
}

TEST(WeightSourceTest, PrintsWhatIsTaken) {
  EXPECT_EQ(to_string(whole_tensor("w", {6, 4})), "w");
  EXPECT_EQ(to_string(take_rows(whole_tensor("w", {6, 4}), {2, 2})), "w[2:4]");
  EXPECT_EQ(to_string(take_rows(whole_tensor("w", {6, 4}), {0, 1, 3, 2})), "w[0:1 every 3 x2]");
  EXPECT_EQ(to_string(take_columns(transposed_tensor("w", {6, 4}), 1, 2)), "w^T[, 1:3]");
  EXPECT_EQ(to_string(stack(whole_tensor("a", {6, 4}), whole_tensor("b", {2, 4}))), "a + b");
}

}  // namespace
}  // namespace lamina
