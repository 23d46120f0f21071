#include "convert/dot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "convert/graph_sketch.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(DotTest, ShowsSlicesAttentionsAndCarriedValues) {
  test::GraphSketch g;
  const ValueId x = g.embed(16);
  const ValueId q = g.linear(x, 16, "the \"q\" projection");
  const ValueId heads = g.heads(q);
  const ValueId out = g.attention_of_heads(heads, heads, heads);
  const ValueId flat = g.flat(out);
  const ValueId sum = g.add(x, flat);
  const std::string text = dot(slice_model(g.finish(sum)));

  const auto box = [](int slice, ValueId id) {
    return "s" + std::to_string(slice) + "_n" + std::to_string(id);
  };
  EXPECT_THAT(text, HasSubstr("digraph sliced_model {"));
  EXPECT_THAT(text, HasSubstr("subgraph cluster_0 {\n    label=\"slice 0\";"));
  EXPECT_THAT(text, HasSubstr("subgraph cluster_1 {"));
  EXPECT_THAT(text, HasSubstr("the \\\"q\\\" projection"));
  EXPECT_THAT(text, HasSubstr(box(0, x) + " -> " + box(0, q) + ";"));
  EXPECT_THAT(text, HasSubstr(box(0, heads) + " -> attention_0 [label=\"q 64 B\"];"));
  EXPECT_THAT(text, HasSubstr(box(0, heads) + " -> attention_0 [label=\"v 64 B\"];"));
  EXPECT_THAT(text, HasSubstr("attention_0 -> " + box(1, flat) + ";"));
  EXPECT_THAT(text,
              HasSubstr(box(0, x) + " -> " + box(1, sum) + " [style=dashed, label=\"64 B\"];"));
  EXPECT_THAT(text, Not(HasSubstr("weight")));
  EXPECT_EQ(std::ranges::count(text, '{'), std::ranges::count(text, '}'));
}

}  // namespace
}  // namespace lamina
