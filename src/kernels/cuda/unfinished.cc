// Operators that CUDA does not have yet.
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {

Status linear(const LinearArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("linear: not on CUDA yet");
}

Status head_linear(TensorView /*x*/,
                   TensorView /*weight*/,
                   TensorView /*out*/,
                   StreamView /*stream*/) {
  return unimplemented("head_linear: not on CUDA yet");
}

Status route(TensorView /*logits*/,
             TensorView /*bias*/,
             const RouteAttrs& /*attrs*/,
             TensorView /*out*/,
             StreamView /*stream*/) {
  return unimplemented("route: not on CUDA yet");
}

Status experts(const ExpertsArgs& /*args*/, StreamView /*stream*/) {
  return unimplemented("experts: not on CUDA yet");
}

}  // namespace lamina::kernels::cuda
