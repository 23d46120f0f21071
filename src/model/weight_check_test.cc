#include "model/weight_check.h"

#include <gmock/gmock.h>

#include <map>

#include "model/testing/model_test_support.h"

namespace lamina {
namespace {

using test::error_of;
using ::testing::HasSubstr;

// Shapes without memory.
class FakeStore final : public WeightStore {
 public:
  explicit FakeStore(std::map<std::string, Shape, std::less<>> shapes)
      : shapes_(std::move(shapes)) {}
  [[nodiscard]] TensorView get(std::string_view name) const override {
    return {nullptr, DType::kF32, shapes_.find(name)->second};
  }
  [[nodiscard]] bool has(std::string_view name) const override { return shapes_.contains(name); }
  [[nodiscard]] uint64_t resident_bytes() const override { return 0; }
  [[nodiscard]] uint64_t fingerprint() const override { return 0; }

 private:
  std::map<std::string, Shape, std::less<>> shapes_;
};

Graph graph_of_two_weights() {
  Graph graph;
  graph.add_weight("a.weight", {DType::kF32, RowAxis::kFixed, Shape{4, 2}});
  graph.add_weight("a.bias", {DType::kF32, RowAxis::kFixed, Shape{4}});
  return graph;
}

TEST(WeightCheck, AcceptsWhatTheGraphNeedsAndMore) {
  const FakeStore store({{"a.weight", {4, 2}}, {"a.bias", {4}}, {"other", {1}}});
  EXPECT_NO_THROW(check_weights(graph_of_two_weights(), store));
}

TEST(WeightCheck, NamesWhatIsMissingOrMisshaped) {
  const FakeStore missing({{"a.weight", {4, 2}}});
  EXPECT_THAT(error_of([&] { check_weights(graph_of_two_weights(), missing); }),
              HasSubstr("lack tensor 'a.bias' [4]"));
  const FakeStore misshaped({{"a.weight", {2, 4}}, {"a.bias", {4}}});
  EXPECT_THAT(error_of([&] { check_weights(graph_of_two_weights(), misshaped); }),
              HasSubstr("'a.weight' has shape [2, 4], the configuration implies [4, 2]"));
}

}  // namespace
}  // namespace lamina
