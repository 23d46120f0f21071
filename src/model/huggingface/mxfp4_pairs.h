// MXFP4 as gpt_oss checkpoints store it: the elements of a matrix in one U8 tensor, their scales in
// another. Internal to huggingface/.
#pragma once

#include <vector>

#include "model/weights/stored_tensor.h"

namespace lamina {

// Turns each U8 tensor "*_blocks" [X, N, K / 32, 16] whose "*_scales" [X, N, K / 32] is there too
// into a kMxfp4 tensor "*_blocks" [X, N, K]. Everything else stays as it is: what does not fit
// together is refused as U8 when a graph names it.
void join_mxfp4_pairs(std::vector<StoredTensor>& tensors);

}  // namespace lamina
