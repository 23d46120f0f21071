// What launch.h does on a GPU, of arguments that it has checked: launch.cu, or no_cuda.cc, whose
// functions give kUnimplemented. Used by launch.cc.
#pragma once

#include "transport/cuda_p2p/launch.h"

namespace lamina::cuda_p2p::gpu {

[[nodiscard]] Status send(const Transfers& transfers, StreamView stream);
[[nodiscard]] Status receive(const Transfers& transfers, StreamView stream);
[[nodiscard]] Status receive_merged(const Merge& merge, StreamView stream);
[[nodiscard]] Status advance(const StepView& step, uint32_t num_messages, StreamView stream);

}  // namespace lamina::cuda_p2p::gpu
