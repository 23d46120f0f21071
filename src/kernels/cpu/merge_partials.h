// merge_partials() on the CPU: arguments are those that passed its checks.
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"

namespace lamina::kernels::cpu {

void merge_partials(const AttentionPartial& into, const AttentionPartial& from, ThreadPool& pool);

}  // namespace lamina::kernels::cpu
