// A sum that is needed both as it is and normalised becomes one operator that reads the operands
// once. Only where sum and norm stand in the same slice without it: then every minimum cut has both
// on one side, and cuts the views of the fused value as it cut them: it carries no more than
// before.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class AddNorm final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "add-norm"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
