// Which slices of a model are the same program: those of equal layers. Used by reports and
// drawings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/sliced_model.h"

namespace lamina {

// For every slice the first one that has the same instructions over values of the same types, but
// for names, layer numbers and where its weights are stored.
std::vector<int32_t> slice_classes(const SlicedModel& model);

// Slices [begin, begin + num_slices), which are followed by `repeats - 1` more runs of the same.
struct SliceRun {
  int32_t begin = 0;
  int32_t num_slices = 1;
  int32_t repeats = 1;
};
// All slices in order, in few runs: layers that alternate with a period of up to eight are one run.
std::vector<SliceRun> slice_runs(const std::vector<int32_t>& classes);

// "1-79", "1, 3, 5, ... (13 slices)": the slices of class `first`.
std::string class_label(const std::vector<int32_t>& classes, int32_t first);

}  // namespace lamina
