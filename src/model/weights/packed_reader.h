// Reading weights into a PackedMatrix: blocks of GGUF's formats that stay quantised, and everything
// else as pairs of bf16. Used by loaded_weights alone.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "graph/weight_source.h"
#include "model/weights/stored_tensor.h"
#include "tensor/packed_matrix.h"

namespace lamina {

// The format in which a weight can stay quantised: kInt4 if Q4_0, Q4_1 and Q4_K are all it is made
// of, kInt8 if it has others of GGUF's quantised formats. Nothing if a part is stored otherwise, is
// transposed, or does not begin and end with blocks.
//   Q8_0, Q4_0 and Q4_1 keep their values. Scales and minima of Q4_K, which are products of two
// numbers there, are rounded to f16. What has no format of its own is decoded and rounded to int8:
// by at most 1/254 of the largest magnitude in 32 elements, where 6 bits are off by 1/62.
std::optional<PackedFormat> quantized_format(const WeightSource& source,
                                             std::span<const StoredTensor* const> tensors);

// Writes the rows of `part` to `out`, of a quantised format, from row `first_row` on, counted
// through a stack. `wrote` as for read_part(). Throws
// Error kInvalidArgument, naming the tensor, if a scale is no number of f16's range.
void read_quantized(const StoredTensor& tensor,
                    const WeightPart& part,
                    const PackedMatrix& out,
                    int64_t first_row,
                    const std::function<void(size_t)>& wrote);

// The same, of kPairs, whatever the tensor is stored as.
void read_pairs(const StoredTensor& tensor,
                const WeightPart& part,
                const PackedMatrix& out,
                int64_t first_row,
                const std::function<void(size_t)>& wrote);

}  // namespace lamina
