// A sliced model as a drawing: slices as columns of operators, attention between them, and what
// crosses with its bytes per token. Equal slices are drawn once. For `lamina convert --svg`.
#pragma once

#include <string>

#include "convert/sliced_model.h"

namespace lamina {

// A whole SVG file. Views are left out: their users hang from what they are views of.
std::string svg(const SlicedModel& model);

}  // namespace lamina
