// Runs a call of attention by one of the kernels of the CPU: task by task, and where tasks are too
// few or too unequal for the threads, segment by segment of their keys.
#pragma once

#include "device/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tasks.h"

namespace lamina::kernels::cpu {

struct AttentionKernel {
  // The rows of a task meet its keys: rows.enter() before each tile, whose keys are then added to
  // rows.open().
  void (*meet)(const RaggedAttentionArgs& args, const AttentionTask& task, TaskRows& rows);
  // Writes what rows came to, normalised, and its log-sum-exp.
  void (*store)(const RaggedAttentionArgs& args,
                const AttentionTask& task,
                RowRange rows,
                const RowSums& sums);
  ScoreBase base;
};

void run_attention(const RaggedAttentionArgs& args,
                   const AttentionKernel& kernel,
                   ThreadPool& pool);

}  // namespace lamina::kernels::cpu
