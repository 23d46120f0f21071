// Reading one WeightPart: any rectangle of a stored tensor, as it lies or transposed, decoded
// piece by piece into its place in a weight. Used by loaded_weights alone.
#pragma once

#include <cstddef>
#include <functional>

#include "graph/weight_source.h"
#include "model/weights/stored_tensor.h"

namespace lamina {

// Writes the elements of `part`, rows on top of each other, to `out` as `dtype` (kF32, kF16 or
// kBF16; aligned for it). `tensor` is of an encoding that we read and has the shape `part.stored`.
// Besides `out` it takes less than a megabyte; pages of the file are let go behind the reader.
// `wrote` is called now and then with the bytes written since its last call. CHECKs that the part
// lies inside its tensor.
void read_part(const StoredTensor& tensor,
               const WeightPart& part,
               DType dtype,
               std::byte* out,
               const std::function<void(size_t)>& wrote);

}  // namespace lamina
