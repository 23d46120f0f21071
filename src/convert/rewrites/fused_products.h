// Products of the same input become one product with the weights on top of each other, and views of
// its columns: gate with up, k with v, and q with both where a cost model finds that attention's
// result is there no later (convert/projection_cost.h). Only products of one slice that are needed
// at the same time are fused: for q, for k and v, or for the rest; so nothing is carried that was
// not, and nothing delays q that it does not need.
#pragma once

#include "convert/rewrites/rewrite.h"

namespace lamina {

class FusedProducts final : public Rewrite {
 public:
  FusedProducts(const ProjectionRates& rates, const ProjectionWorkload& workload)
      : rates_(rates), workload_(workload) {}
  [[nodiscard]] std::string_view name() const override { return "fused-products"; }
  [[nodiscard]] Rewritten rewrite(const Graph& graph) const override;

 private:
  ProjectionRates rates_;
  ProjectionWorkload workload_;
};

}  // namespace lamina
