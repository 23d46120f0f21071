#include "model/weight_check.h"

#include <fmt/format.h>

#include "base/error.h"

namespace lamina {

void check_weights(const Graph& graph, const WeightStore& weights) {
  for (const Node& node : graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    const Shape& expected = node.type.row_shape;
    if (!weights.has(node.name)) {
      throw Error(
          StatusCode::kInvalidArgument,
          fmt::format("the model's files lack tensor '{}' {}", node.name, expected.to_string()));
    }
    const Shape shape = weights.get(node.name).shape;
    if (!(shape == expected)) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("tensor '{}' has shape {}, the configuration implies {}",
                              node.name,
                              shape.to_string(),
                              expected.to_string()));
    }
  }
}

}  // namespace lamina
