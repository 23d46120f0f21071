// Type inference of single operators: the rules that graph.h states beside each OpKind. Used by
// Graph only, when a node is added and again by verify(). Pure.
#pragma once

#include <span>
#include <string_view>

#include "graph/graph.h"

namespace lamina {

// Output type of an operator applied to values of types `inputs`. Not for kInput, kWeight and
// kReshape, whose types are given. Throws Error kInvalidArgument that names the node and what does
// not fit.
ValueType infer_type(OpKind kind,
                     std::string_view name,
                     std::span<const ValueType> inputs,
                     const NodeAttrs& attrs);

}  // namespace lamina
