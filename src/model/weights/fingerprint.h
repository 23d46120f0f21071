// A cheap hash that tells two loaded models apart. Used by loaded_weights.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/tensor_view.h"

namespace lamina {

// `hash`, further mixed with the name, dtype and shape of `tensor` and sixteen words spread over
// it, both ends included: a sample that another model of the same shape cannot match, at the cost
// of a few pages.
uint64_t hash_tensor(uint64_t hash, std::string_view name, const TensorView& tensor);

}  // namespace lamina
