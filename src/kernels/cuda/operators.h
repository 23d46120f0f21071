// The operators of this room on CUDA: what dispatch calls once arguments have passed their checks,
// in builds with CUDA and, as no_cuda.cc, without. All pointers of views are of the stream's
// device; everything is enqueued on the stream and nothing waits, but where it is said. Meanings as
// the operators' own headers have them; what differs is said here. A launch that fails is
// kInternal.
#pragma once

#include <span>

#include "base/status.h"
#include "device/stream.h"
#include "kernels/attention.h"
#include "kernels/experts.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/sample.h"
#include "tensor/op_attrs.h"
#include "tensor/tensor_view.h"

namespace lamina::kernels::cuda {

[[nodiscard]] Status norm(const NormArgs& args, StreamView stream);
[[nodiscard]] Status add_norm(const AddNormArgs& args, StreamView stream);

[[nodiscard]] Status add(TensorView a, TensorView b, TensorView out, StreamView stream);
[[nodiscard]] Status mul(TensorView a, TensorView b, TensorView out, StreamView stream);
[[nodiscard]] Status scale(TensorView x, float factor, TensorView out, StreamView stream);
[[nodiscard]] Status soft_cap(TensorView x, float cap, TensorView out, StreamView stream);
[[nodiscard]] Status activation(TensorView x, Activation kind, TensorView out, StreamView stream);
[[nodiscard]] Status gated_activation(TensorView x,
                                      const GatedActivationAttrs& attrs,
                                      TensorView out,
                                      StreamView stream);

// inv_freq is host memory, at most 512 of them: it goes with the launch.
[[nodiscard]] Status rope_table(TensorView positions,
                                std::span<const float> inv_freq,
                                float magnitude,
                                TensorView out,
                                StreamView stream);
[[nodiscard]] Status rope(
    TensorView x, TensorView table, bool interleaved, TensorView out, StreamView stream);

// Ids and rows cannot be checked on the host: those out of range give rows of zeros. The table is
// not packed.
[[nodiscard]] Status embedding(TensorView table, TensorView ids, TensorView out, StreamView stream);
[[nodiscard]] Status embedding_shard(
    TensorView table, int64_t first_id, TensorView ids, TensorView out, StreamView stream);
[[nodiscard]] Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream);
[[nodiscard]] Status concat(TensorView a, TensorView b, TensorView out, StreamView stream);

// At most 16 parts: their addresses go with the launch.
[[nodiscard]] Status sum_parts(std::span<const TensorView> parts,
                               TensorView out,
                               StreamView stream);
[[nodiscard]] Status join_columns(std::span<const TensorView> parts,
                                  TensorView out,
                                  StreamView stream);

// Weights are not packed. f32 products are without TF32. Results depend on T: cuBLAS chooses by
// size, and few rows of 16-bit elements are narrow_product.h's, which may read weights before the
// operator before it on the stream has ended: nothing that writes them is enqueued directly before.
// linear() and head_linear() allocate the stream's workspace when they are first called on it, and
// choose when a shape is first seen: to capture them in a graph, run them once before.
[[nodiscard]] Status linear(const LinearArgs& args, StreamView stream);
[[nodiscard]] Status head_linear(TensorView x,
                                 TensorView weight,
                                 TensorView out,
                                 StreamView stream);
// At most 4096 experts: kUnimplemented beyond.
[[nodiscard]] Status route(
    TensorView logits, TensorView bias, const RouteAttrs& attrs, TensorView out, StreamView stream);
// Does not wait to learn which experts have tokens. Batch-invariant but where tiles change their
// size. Workspace grows with T and the number of experts when a step needs more than any before, by
// 256 MiB and what routing takes at most: to capture it in a graph, run it once before with the
// largest T.
[[nodiscard]] Status experts(const ExpertsArgs& args, StreamView stream);

// These two wait for the stream, since what they give is the host's: they cannot be captured. Draws
// are the CPU's, so a seed gives the same token unless probabilities differ in their last bits just
// there; ids of less than 2^-45 of the largest probability are never drawn. Staging memory is the
// stream's, and grows when a step needs more than any before.
[[nodiscard]] Status sample(TensorView logits,
                            std::span<const SampleRow> rows,
                            std::span<SampledToken> out,
                            StreamView stream);
[[nodiscard]] Status log_probabilities(TensorView logits,
                                       std::span<const int32_t> targets,
                                       int32_t num_top,
                                       std::span<SampledToken> out,
                                       StreamView stream);

// Whether caches of that shape are to be of KvOrder::kSwizzled, which the fast kernels read.
[[nodiscard]] bool reads_swizzled(const KvShape& shape);
[[nodiscard]] Status append_kv(const AppendKvArgs& args, StreamView stream);
[[nodiscard]] Status ragged_attention(const RaggedAttentionArgs& args, StreamView stream);
[[nodiscard]] Status merge_partials(const AttentionPartial& into,
                                    const AttentionPartial& from,
                                    StreamView stream);

}  // namespace lamina::kernels::cuda
