// Sliced models as Graphviz text: one box a slice, attention operators between them, carried values
// dashed with their bytes. For `lamina convert --dot`.
#pragma once

#include <string>

#include "convert/sliced_model.h"

namespace lamina {

// Weights and step inputs are left out: every slice has them. Same input, same text.
std::string dot(const SlicedModel& model);

}  // namespace lamina
