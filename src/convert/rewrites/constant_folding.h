// Computes now what needs no step: scale by 1 is nothing, a scale of a scale is one, a scale of the
// queries is the attention's own, views of views are one view, a view of everything is nothing.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class ConstantFolding final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "constant-folding"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
