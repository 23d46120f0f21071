// Argument checks shared by the operators: shapes and dtypes, before anything is written. Used by
// <op>.cc alone; the code in ref/ and cpu/ trusts what passed here.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "kernels/attention.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace lamina::kernels {

// f32, f16 or bf16.
[[nodiscard]] bool is_float(DType dtype);

// "float32 [2, 3]", or "nothing" for an empty view: for messages.
std::string describe(const TensorView& view);

// That this build has no CUDA.
[[nodiscard]] Status no_cuda(std::string_view op);
// That packed weights are for products on the CPU.
[[nodiscard]] Status no_packed_weights(std::string_view op);

// A float view of any rank from 1 on.
[[nodiscard]] Status check_float(std::string_view op,
                                 std::string_view name,
                                 const TensorView& view);

// x a float view, out like it.
[[nodiscard]] Status check_same(std::string_view op, const TensorView& x, const TensorView& out);

// A non-empty view of `shape` and `dtype`, unless it has no elements.
[[nodiscard]] Status check_tensor(std::string_view op,
                                  std::string_view name,
                                  const TensorView& view,
                                  const Shape& shape,
                                  DType dtype);

// A float view of rank `rank`, each extent of the inner axes positive.
[[nodiscard]] Status check_float_tensor(std::string_view op,
                                        std::string_view name,
                                        const TensorView& view,
                                        int rank);

// A weight of `shape`, whose rows and columns are positive: contiguous and of x's dtype, or packed
// in whole blocks in a format for it.
[[nodiscard]] Status check_weight(std::string_view op,
                                  std::string_view name,
                                  const WeightView& weight,
                                  const Shape& shape,
                                  DType x_dtype);

// The first of a block table's entries that is neither one of `num_blocks` nor kNoBlock.
[[nodiscard]] std::optional<int32_t> find_bad_block(std::span<const int32_t> table,
                                                    int64_t num_blocks);

// That `batch` describes `num_tokens` queries: ascending query_begin, contexts that hold their
// queries, and tables that hold the contexts.
[[nodiscard]] Status check_bounds(std::string_view op,
                                  const RaggedBatch& batch,
                                  int64_t block_size,
                                  int64_t num_tokens);

// Also that their keys lie in blocks of `cache` [P, Hkv, block_size, D]: block ids in range for
// every position that `window` leaves readable (window < 0: all of them).
[[nodiscard]] Status check_batch(std::string_view op,
                                 const RaggedBatch& batch,
                                 const TensorView& cache,
                                 int64_t num_tokens,
                                 int64_t window);

}  // namespace lamina::kernels
