// Loading: a list of StoredTensors becomes a WeightStore in one dtype. Tensors whose bytes are
// already right are used in place; the others are decoded chunk by chunk into memory of our own,
// and the pages of the file are let go behind the reader, so that resident memory stays near the
// size of the result.
#pragma once

#include <memory>
#include <span>

#include "model/model_files.h"
#include "model/weights/stored_tensor.h"

namespace lamina {

// `dtype`: kF32, kF16 or kBF16. Every tensor lies wholly in its file. Throws Error:
// kInvalidArgument for another dtype or a name that stands twice, kResourceExhausted naming the
// tensor that found no memory.
std::unique_ptr<WeightStore> load_stored_tensors(std::span<const StoredTensor> tensors,
                                                 DType dtype,
                                                 const LoadProgress& progress);

}  // namespace lamina
