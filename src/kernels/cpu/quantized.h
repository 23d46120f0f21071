// quantized_linear() on the CPU, where uses_int8_dot(): arguments are those that passed their
// checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/quantized.h"

namespace lamina::kernels::cpu {

void quantized_linear(const QuantizedLinearArgs& args, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
