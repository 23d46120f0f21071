// What launch.h does on a CPU, of arguments that it has checked: done by the calling thread when
// these return. Used by launch.cc.
#pragma once

#include "transport/cuda_p2p/launch.h"

namespace lamina::cuda_p2p::host {

// Nothing, if a wait of the step has failed.
[[nodiscard]] Status send(const Transfers& transfers);
// kUnavailable if a wait ends without its message: StepGuard::status() knows why.
[[nodiscard]] Status receive(const Transfers& transfers);
[[nodiscard]] Status receive_merged(const Merge& merge);

}  // namespace lamina::cuda_p2p::host
