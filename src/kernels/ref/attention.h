// The oracles of append_kv(), ragged_attention() and merge_partials(): arguments are those that
// passed their checks.
#pragma once

#include "kernels/attention.h"

namespace lamina::kernels::ref {

void append_kv(const AppendKvArgs& args);
void ragged_attention(const RaggedAttentionArgs& args);
void merge_partials(const AttentionPartial& into, const AttentionPartial& from);

}  // namespace lamina::kernels::ref
