#include <algorithm>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/element_of_dtype.h"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/products/bias_rows.cuh"
#include "kernels/cuda/products/blas_lt.h"
#include "kernels/cuda/products/narrow_product.h"
#include "kernels/cuda/workspace.h"

namespace lamina::kernels::cuda {
namespace {

// Elements between rows of `width`: a single row, whose stride says nothing, has its width, so that
// views of it share a plan.
int64_t row_stride_of(const TensorView& view, int64_t width) {
  return view.shape[0] <= 1 ? width : view.row_stride;
}

Product product_of(const LinearArgs& args) {
  const TensorView& weight = args.weight.tensor;
  return {.x = args.x.data,
          .weight = weight.data,
          .out = args.out.data,
          .dtype = args.x.dtype,
          .out_dtype = args.out.dtype,
          .num_rows = args.x.shape[0],
          .num_columns = weight.shape[0],
          .depth = weight.shape[1],
          .x_strides = {.row_stride = row_stride_of(args.x, weight.shape[1])},
          .weight_strides = {.row_stride = weight.shape[1]},
          .out_strides = {.row_stride = row_stride_of(args.out, weight.shape[0])}};
}

NarrowProduct narrow_product_of(const LinearArgs& args, const Product& product) {
  return {.x = product.x,
          .weight = product.weight,
          .bias = args.bias.data,
          .out = product.out,
          .queue = nullptr,
          .element = element_kind(product.dtype),
          .out_element = element_kind(product.out_dtype),
          .num_tokens = product.num_rows,
          .width = product.num_columns,
          .depth = product.depth,
          .x_stride = product.x_strides.row_stride,
          .weight_stride = product.weight_strides.row_stride,
          .out_stride = product.out_strides.row_stride};
}

Status multiply_narrow(NarrowProduct product, StreamView stream) {
  LAMINA_ASSIGN_OR_RETURN(std::byte* const queue,
                          workspace(stream, WorkspaceUse::kNarrowProducts, kNarrowQueueBytes));
  product.queue = reinterpret_cast<int32_t*>(queue);
  return lamina::cuda::to_status(launch_narrow_product(product, lamina::cuda::raw(stream)),
                                 "a narrow product");
}

}  // namespace

Status linear(const LinearArgs& args, StreamView stream) {
  Product product = product_of(args);
  if (product.num_rows == 0) return {};
  const NarrowProduct narrow = narrow_product_of(args, product);
  if (takes_narrow_product(narrow) && is_fast_as_narrow(narrow)) {
    return multiply_narrow(narrow, stream);
  }
  if (args.bias.empty()) return multiply(product, stream);
  // cuBLASLt adds a bias of out's dtype alone, not to all shapes, and where rows do not start at
  // vectors only after it rounded the sum to out's dtype.
  constexpr int64_t kVectorElements = 8;
  const bool starts_at_vectors = (product.depth | product.x_strides.row_stride |
                                  product.num_columns | product.out_strides.row_stride) %
                                     kVectorElements ==
                                 0;
  if (args.bias.dtype == args.out.dtype && starts_at_vectors) {
    product.bias = args.bias.data;
    const Status status = multiply(product, stream);
    if (status.code() != StatusCode::kUnimplemented) return status;
    product.bias = nullptr;
  }
  const BiasRowsParams bias_rows = {.bias = args.bias.data,
                                    .out = args.out.data,
                                    .bias_element = element_kind(args.bias.dtype),
                                    .out_element = element_kind(args.out.dtype),
                                    .num_rows = product.num_rows,
                                    .num_columns = product.num_columns,
                                    .out_stride = product.out_strides.row_stride};
  LAMINA_RETURN_IF_ERROR(lamina::cuda::to_status(
      launch_bias_rows(bias_rows, lamina::cuda::raw(stream)), "linear: writing the bias"));
  product.adds_to_out = true;
  return multiply(product, stream);
}

Status head_linear(TensorView x, TensorView weight, TensorView out, StreamView stream) {
  const int64_t num_heads = weight.shape[0];
  const int64_t width = weight.shape[1];
  const int64_t depth = weight.shape[2];
  if (x.shape[0] == 0 || num_heads == 0) return {};
  return multiply({.x = x.data,
                   .weight = weight.data,
                   .out = out.data,
                   .dtype = x.dtype,
                   .out_dtype = out.dtype,
                   .num_rows = x.shape[0],
                   .num_columns = width,
                   .depth = depth,
                   .num_matrices = num_heads,
                   .x_strides = {row_stride_of(x, num_heads * depth), depth},
                   .weight_strides = {depth, width * depth},
                   .out_strides = {row_stride_of(out, num_heads * width), width}},
                  stream);
}

}  // namespace lamina::kernels::cuda
