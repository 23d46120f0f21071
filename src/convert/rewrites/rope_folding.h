// Heads of q and of k that are neighbouring columns of one product and turn by the same table are
// turned by one operator.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class RopeFolding final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "rope-folding"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
