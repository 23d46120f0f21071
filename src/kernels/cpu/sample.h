// sample() and log_probabilities() on the CPU: arguments are those that passed their checks. One
// thread takes a row.
#pragma once

#include <span>

#include "device/thread_pool.h"
#include "kernels/sample.h"

namespace lamina::kernels::cpu {

void sample(const TensorView& logits,
            std::span<const SampleRow> rows,
            std::span<SampledToken> out,
            ThreadPool& pool);

void log_probabilities(const TensorView& logits,
                       std::span<const int32_t> targets,
                       int32_t num_top,
                       std::span<SampledToken> out,
                       ThreadPool& pool);

}  // namespace lamina::kernels::cpu
