// Leaves out what has no effect on the output. Attention operators stay: one without effect is for
// the slicer to refuse.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class DeadCode final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "dead-code"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
