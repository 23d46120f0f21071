#include "exec/device_weights.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>

#include "base/error.h"
#include "convert/graph_sketch.h"

namespace lamina {
namespace {

// One matrix under every name, or a vector, or packed ones.
class FakeStore final : public WeightStore {
 public:
  explicit FakeStore(bool is_packed, const Shape& shape = {2, 2})
      : is_packed_(is_packed), shape_(shape) {}
  [[nodiscard]] TensorView get(std::string_view /*name*/) const override {
    return {const_cast<float*>(values_.data()), DType::kF32, shape_};
  }
  [[nodiscard]] std::optional<PackedMatrix> find_packed(std::string_view /*name*/) const override {
    if (is_packed_) return PackedMatrix{};
    return std::nullopt;
  }
  [[nodiscard]] uint64_t resident_bytes() const override { return sizeof(values_); }
  [[nodiscard]] uint64_t fingerprint() const override { return 42; }

 private:
  bool is_packed_;
  Shape shape_;
  std::array<float, 4> values_ = {1, 2, 3, 4};
};

Graph one_product() {
  test::GraphSketch g;
  return g.finish(g.linear(g.embed(32), 32));
}

// The name of a weight of the graph.
std::string weight_name(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    if (node.kind == OpKind::kWeight) return node.name;
  }
  return {};
}

TEST(DeviceWeights, AreCopies) {
  ThreadPool pool(1);
  const Graph graph = one_product();
  const FakeStore host(false);
  const DeviceWeights placed(graph, host, StreamView(pool));
  const TensorView weight = placed.get(weight_name(graph));
  EXPECT_EQ(weight.shape, (Shape{2, 2}));
  EXPECT_NE(weight.data, host.get("").data);
  EXPECT_EQ(weight.as<float>()[3], 4.0F);
  EXPECT_EQ(placed.fingerprint(), 42U);
  EXPECT_FALSE(placed.find_packed(weight_name(graph)));
  EXPECT_THROW((void)placed.get("another"), Error);
}

TEST(DeviceWeights, OfOneAxisStayOnTheHostToo) {
  ThreadPool pool(1);
  const Graph graph = one_product();
  const DeviceWeights matrices(graph, FakeStore(false), StreamView(pool));
  EXPECT_THROW((void)matrices.get_on_host(weight_name(graph)), Error);
  const DeviceWeights vectors(graph, FakeStore(false, {4}), StreamView(pool));
  const TensorView kept = vectors.get_on_host(weight_name(graph));
  EXPECT_NE(kept.data, vectors.get(weight_name(graph)).data);
  EXPECT_EQ(*kept.row<float>(3), 4.0F);
}

TEST(DeviceWeights, PackedOnesAreRefused) {
  ThreadPool pool(1);
  EXPECT_THROW(DeviceWeights(one_product(), FakeStore(true), StreamView(pool)), Error);
}

TEST(DeviceWeights, StayWhereTheyAreOnTheHost) {
  ThreadPool pool(1);
  auto host = std::make_unique<FakeStore>(true);
  const WeightStore* const before = host.get();
  EXPECT_EQ(place_weights(one_product(), std::move(host), StreamView(pool)).get(), before);
}

}  // namespace
}  // namespace lamina
