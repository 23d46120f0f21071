// Reassociates sums of three or more terms, so that terms that need no attention output, or only
// earlier ones, are added to each other first: x + attn + mlp becomes (x + mlp) + attn. The cut
// then carries one vector, and the sum is done while attention runs. Changes the order of float
// additions.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class ResidualSums final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "residual-sums"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
