// Rewriting random graphs: the result computes the same, is sliced so that joined slices equal it,
// and carries no more.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "convert/converter.h"
#include "convert/graph_interpreter.h"
#include "convert/joined_slices.h"
#include "convert/random_model.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

int64_t carried_bytes(const SlicedModel& model) {
  int64_t bytes = 0;
  for (const Slice& slice : model.slices) {
    for (const ValueId value : slice.carried_out) bytes += model.graph.type(value).row_bytes();
  }
  return bytes;
}

// Sums and products change their order: relative to the largest element.
void expect_close(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  double largest = 1e-12;
  for (const double value : a) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6 * largest) << "element " << i;
}

Graph random_graph(uint64_t seed) {
  return test::RandomModel(seed).build(1 + seed % 5, 8);
}

// Every other graph with q fused, whose launches cost enough for that.
RewriteOptions random_options(uint64_t seed) {
  RewriteOptions options;
  if (seed % 2 == 1) options.rates.launch_s = 1.0;
  return options;
}

TEST(RewriterPropertyTest, ComputesTheSameInSlicesThatCarryNoMore) {
  std::map<std::string, int32_t> applied;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Graph graph = random_graph(seed);
    const ConvertedModel model = convert_model(graph, random_options(seed / 5));
    expect_close(test::GraphInterpreter(graph).run(),
                 test::GraphInterpreter(model.sliced.graph).run());
    ASSERT_EQ(test::evaluate_slices(model.sliced), test::evaluate_graph(model.sliced.graph));
    ASSERT_LE(carried_bytes(model.sliced), carried_bytes(slice_model(graph)));
    if (testing::Test::HasFatalFailure()) return;
    for (const auto& entry : model.rewrites.entries) applied[entry.name] += entry.num_applied;
  }
  // Every rewrite had enough to do for this to mean something.
  for (const auto& [name, count] : applied) EXPECT_GE(count, 50) << name;
}

TEST(RewriterPropertyTest, ComputesTheSameWithoutAnyOneRewrite) {
  for (const std::string_view name : rewrite_names()) {
    for (uint64_t seed = 500; seed < 540; ++seed) {
      SCOPED_TRACE(testing::Message() << "without " << name << ", seed " << seed);
      const Graph graph = random_graph(seed);
      RewriteOptions options = random_options(seed / 5);
      options.disabled = {std::string(name)};
      const ConvertedModel model = convert_model(graph, options);
      expect_close(test::GraphInterpreter(graph).run(),
                   test::GraphInterpreter(model.sliced.graph).run());
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// A second round finds nothing left to do.
TEST(RewriterPropertyTest, RewritingTwiceChangesNothing) {
  for (uint64_t seed = 600; seed < 650; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const RewriteOptions options = random_options(seed / 5);
    const RewrittenGraph once = rewrite_graph(random_graph(seed), options);
    ASSERT_EQ(rewrite_graph(once.graph, options).graph.dump(), once.graph.dump());
  }
}

}  // namespace
}  // namespace lamina
