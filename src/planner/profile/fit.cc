#include "planner/profile/fit.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace lamina::planner {
namespace {

using Matrix = std::vector<std::vector<double>>;

// Solves a x = b for a symmetric `a` by elimination with pivots; what depends on others is 0.
std::vector<double> solve(Matrix a, std::vector<double> b) {
  const size_t n = b.size();
  std::vector<double> scale(n);
  for (size_t i = 0; i < n; ++i) scale[i] = a[i][i];
  std::vector<bool> is_free(n, false);
  for (size_t column = 0; column < n; ++column) {
    constexpr double kSingular = 1e-12;
    if (a[column][column] <= kSingular * scale[column]) {
      is_free[column] = true;
      continue;
    }
    for (size_t row = column + 1; row < n; ++row) {
      const double factor = a[row][column] / a[column][column];
      for (size_t i = column; i < n; ++i) a[row][i] -= factor * a[column][i];
      b[row] -= factor * b[column];
    }
  }
  std::vector<double> x(n, 0.0);
  for (size_t i = n; i-- > 0;) {
    if (is_free[i]) continue;
    double sum = b[i];
    for (size_t j = i + 1; j < n; ++j) sum -= a[i][j] * x[j];
    x[i] = sum / a[i][i];
  }
  return x;
}

// Coefficients of the features in use, relative errors being least.
std::vector<double> solve_for(const Matrix& features,
                              const std::vector<double>& seconds,
                              const std::vector<size_t>& used) {
  Matrix normal(used.size(), std::vector<double>(used.size(), 0.0));
  std::vector<double> right(used.size(), 0.0);
  for (size_t point = 0; point < seconds.size(); ++point) {
    const double weight = 1.0 / seconds[point];
    for (size_t i = 0; i < used.size(); ++i) {
      const double value = weight * features[point][used[i]];
      right[i] += value;
      for (size_t j = 0; j < used.size(); ++j) {
        normal[i][j] += value * weight * features[point][used[j]];
      }
    }
  }
  return solve(std::move(normal), std::move(right));
}

}  // namespace

double LinearFit::at(const std::vector<double>& features) const {
  LAMINA_CHECK_EQ(features.size(), coefficients.size());
  double sum = 0;
  for (size_t i = 0; i < features.size(); ++i) sum += features[i] * coefficients[i];
  return sum;
}

LinearFit fit_relative(const std::vector<std::vector<double>>& features,
                       const std::vector<double>& seconds) {
  LAMINA_CHECK(!seconds.empty());
  LAMINA_CHECK_EQ(features.size(), seconds.size());
  std::vector<size_t> used(features.front().size());
  for (size_t i = 0; i < used.size(); ++i) used[i] = i;
  std::vector<double> solution = solve_for(features, seconds, used);
  while (true) {
    const auto least = std::min_element(solution.begin(), solution.end());
    if (least == solution.end() || *least >= 0) break;
    used.erase(used.begin() + (least - solution.begin()));
    solution = solve_for(features, seconds, used);
  }
  LinearFit fit;
  fit.coefficients.assign(features.front().size(), 0.0);
  for (size_t i = 0; i < used.size(); ++i) fit.coefficients[used[i]] = solution[i];
  for (size_t i = 0; i < seconds.size(); ++i) {
    const double error = std::abs(fit.at(features[i]) / seconds[i] - 1.0);
    fit.mean_error += error / static_cast<double>(seconds.size());
    fit.worst_error = std::max(fit.worst_error, error);
  }
  return fit;
}

}  // namespace lamina::planner
