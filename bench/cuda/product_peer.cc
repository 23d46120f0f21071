#include "product_peer.h"

#include "base/error.h"
#include "kernels/cuda/products/blas_lt.h"

namespace lamina::bench {
namespace {

DType dtype_of(kernels::cuda::ElementKind kind) {
  switch (kind) {
    case kernels::cuda::ElementKind::kF32:
      return DType::kF32;
    case kernels::cuda::ElementKind::kF16:
      return DType::kF16;
    case kernels::cuda::ElementKind::kBF16:
      return DType::kBF16;
  }
  return DType::kF32;
}

}  // namespace

bool multiply_by_peer(const kernels::cuda::NarrowProduct& product, cudaStream_t stream) {
  throw_if_error(kernels::cuda::multiply({.x = product.x,
                                          .weight = product.weight,
                                          .bias = product.bias,
                                          .out = product.out,
                                          .dtype = dtype_of(product.element),
                                          .out_dtype = dtype_of(product.out_element),
                                          .num_rows = product.num_tokens,
                                          .num_columns = product.width,
                                          .depth = product.depth,
                                          .x_strides = {.row_stride = product.x_stride},
                                          .weight_strides = {.row_stride = product.weight_stride},
                                          .out_strides = {.row_stride = product.out_stride}},
                                         StreamView({DeviceKind::kCuda, 0}, stream)));
  return true;
}

}  // namespace lamina::bench
