// ElementKind: float elements by the names that launches and kernels know them by: what DType is to
// all others, whose header nvcc does not take.
#pragma once

#include <cstdint>

namespace lamina::kernels::cuda {

enum class ElementKind : uint8_t { kF32, kF16, kBF16 };

}  // namespace lamina::kernels::cuda
