// The minimum cut behind slicing: divides values into those computed before an attention operator
// and those computed after it, so that the values kept across weigh least. Knows no operators. The
// only file that uses Boost.Graph is its .cc.
#pragma once

#include <cstdint>
#include <vector>

namespace lamina {

// A value, what it costs to keep it, and the values computed from it, each once.
struct CutValue {
  int64_t weight = 0;
  std::vector<int32_t> consumers;
};

// Value i is bound to stand before if before[i] and after if after[i]; the others are free to go
// where they cost least. No value is bound both ways, what a bound-before value is computed from is
// bound before, and what is computed from a bound-after value is bound after.
struct CutProblem {
  std::vector<CutValue> values;
  std::vector<bool> before;
  std::vector<bool> after;
};

// The values to compute before, chosen so that
//   - none of them is computed from a value that stands after (no edge from after to before);
//   - the sum of weights of values before that have a consumer after is least, each counted once;
//   - among the least, the set is the largest: minimum cuts are closed under union, so there is one
//     largest set, and it does not depend on the order of values.
// CHECKs the conditions on CutProblem. Source: maximum flow by Boykov and Kolmogorov (2004).
std::vector<bool> latest_min_cut(const CutProblem& problem);

// The weight of a division: what latest_min_cut makes least.
int64_t cut_weight(const CutProblem& problem, const std::vector<bool>& before);

}  // namespace lamina
