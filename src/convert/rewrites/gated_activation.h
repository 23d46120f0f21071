// activation(gate) * up of two neighbouring halves of one product becomes one operator over both.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class GatedActivation final : public Rewrite {
 public:
  [[nodiscard]] std::string_view name() const override { return "gated-activation"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;
};

}  // namespace lamina
