// Products of matrices by cuBLASLt: the one place that knows it. One handle for each device, and a
// plan, the algorithm that is taken, for each shape: the first product of a shape asks cuBLASLt for
// candidates and takes the first that runs, later ones look it up. Used by linear.cc.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/dtype.h"

namespace lamina::kernels::cuda {

// Where the matrices of one side lie: rows are `row_stride` elements apart, matrices
// `matrix_stride`, columns one.
struct Strides {
  int64_t row_stride = 0;
  int64_t matrix_stride = 0;
};

// out[h] = x[h] weight[h]^T + bias for each of `num_matrices`, or with `adds_to_out` plus what is
// in out. x [T, K] and weight [N, K] of `dtype`, out [T, N] of `out_dtype`, bias [N] of out's dtype
// or null. Sums are f32, without TF32, and so are parts of them that are summed up later.
struct Product {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* out = nullptr;
  DType dtype = DType::kF32;
  DType out_dtype = DType::kF32;
  int64_t num_rows = 0;     // T
  int64_t num_columns = 0;  // N
  int64_t depth = 0;        // K
  int64_t num_matrices = 1;
  Strides x_strides;
  Strides weight_strides;
  Strides out_strides;
  bool adds_to_out = false;
};

// Enqueues and returns; the calling thread's current device is the stream's. Nothing waits but the
// first product on a stream, which allocates its workspace of 32 MiB, if prepare_products() did
// not. Plans are internally locked. May be captured in a graph; a shape that was never run before
// is planned in capture too, but cuBLASLt may then have to load a kernel, which not all capture
// modes allow: run a shape once before. Errors: kUnimplemented if no algorithm takes the product,
// kInternal if a launch fails, and those of workspace().
[[nodiscard]] Status multiply(const Product& product, StreamView stream);

// Makes the stream's workspace and its device's handle, so that the first product does not.
[[nodiscard]] Status prepare_products(StreamView stream);

}  // namespace lamina::kernels::cuda
