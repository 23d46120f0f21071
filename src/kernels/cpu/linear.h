// linear() and head_linear() on the CPU: arguments are those that passed their checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/linear.h"

namespace lamina::kernels::cpu {

void linear(const LinearArgs& args, ThreadPool& pool);
// Columns [begin, end) of out, in the calling thread; the same bits as linear(). `begin` is a
// multiple of kPanelRows.
void linear_part(const LinearArgs& args, int64_t begin, int64_t end);
void head_linear(const TensorView& x,
                 const WeightView& weight,
                 const TensorView& out,
                 ThreadPool& pool);

// Whether there are instructions for such weights; without them they are the reference's, slow.
bool multiplies_packed(PackedFormat format);

}  // namespace lamina::kernels::cpu
