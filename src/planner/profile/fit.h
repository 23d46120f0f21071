// Least squares for times: coefficients of a sum of features that are never negative, by relative
// errors, since a microsecond matters more to a short time than to a long one. Pure functions.
#pragma once

#include <string>
#include <vector>

namespace lamina::planner {

struct LinearFit {
  std::vector<double> coefficients;  // >= 0, one a feature
  double mean_error = 0;             // of the points, relative
  double worst_error = 0;

  [[nodiscard]] double at(const std::vector<double>& features) const;
};

// `features` [points][num_features], each at least one; `seconds` [points], positive. A feature
// whose coefficient would be negative is left out. CHECKs the sizes.
LinearFit fit_relative(const std::vector<std::vector<double>>& features,
                       const std::vector<double>& seconds);

}  // namespace lamina::planner
