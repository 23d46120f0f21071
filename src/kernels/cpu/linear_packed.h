// Products with packed weights, each where its instructions are (instruction_set.h). As linear()
// and linear_part() of linear.h; `begin` is a multiple of kPanelRows.
#pragma once

#include "device/thread_pool.h"
#include "kernels/linear.h"

namespace lamina::kernels::cpu {

// kPairs, x of bf16, uses_bf16_dot().
void linear_pairs(const LinearArgs& args, ThreadPool& pool);
void linear_part_pairs(const LinearArgs& args, int64_t begin, int64_t end);
// kPairs, x of bf16, uses_amx().
void linear_amx(const LinearArgs& args, ThreadPool& pool);
void linear_part_amx(const LinearArgs& args, int64_t begin, int64_t end);
// kInt8 and kInt4, uses_int8_dot().
void linear_int8(const LinearArgs& args, ThreadPool& pool);
void linear_part_int8(const LinearArgs& args, int64_t begin, int64_t end);

}  // namespace lamina::kernels::cpu
