// A thread for each word of a row.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/word.cuh"

namespace lamina::kernels::cuda {
namespace {

// Strides and widths in words.
struct GatherParams {
  const void* from;
  const int32_t* ids;
  void* out;
  int64_t from_stride;
  int64_t id_stride;
  int64_t out_stride;
  int64_t first_id;  // that of the first row of `from`
  int64_t num_from;  // rows of `from`
  int64_t num_rows;
  int64_t width;
};

template <typename Word>
__global__ void gather_kernel(const __grid_constant__ GatherParams params) {
  after_previous_kernel();
  const int64_t i = column();
  if (i >= params.width) return;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const int64_t from = params.ids[row * params.id_stride] - params.first_id;
    Word word{};
    if (from >= 0 && from < params.num_from) {
      word = static_cast<const Word*>(params.from)[from * params.from_stride + i];
    }
    static_cast<Word*>(params.out)[row * params.out_stride + i] = word;
  }
}

// out[s] = from[ids[s] - first_id], zeros where there is no such row.
Status gather(std::string_view op,
              const TensorView& from,
              int64_t first_id,
              const TensorView& ids,
              const TensorView& out,
              StreamView stream) {
  if (out.shape[0] == 0) return {};
  WordAlignment alignment;
  alignment.add_rows(from);
  alignment.add_rows(out);
  alignment.add_bytes(static_cast<int64_t>(out.row_bytes()));
  return alignment.with_word([&]<typename Word>() {
    const GatherParams params{from.data,
                              ids.as<int32_t>(),
                              out.data,
                              words_of<Word>(from.row_stride, from),
                              ids.row_stride,
                              words_of<Word>(out.row_stride, out),
                              first_id,
                              from.shape[0],
                              out.shape[0],
                              words_of<Word>(out.row_elements(), out)};
    const RowGrid grid(params.num_rows, params.width);
    const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
    return lamina::cuda::to_status(launch(gather_kernel<Word>, how, params), op);
  });
}

struct ConcatParams {
  const void* a;
  const void* b;
  void* out;
  int64_t a_stride;
  int64_t b_stride;
  int64_t out_stride;
  int64_t num_rows;
  int64_t num_heads;
  int64_t a_width;  // of a head
  int64_t b_width;
};

template <typename Word>
__global__ void concat_kernel(const __grid_constant__ ConcatParams params) {
  after_previous_kernel();
  const int64_t out_width = params.a_width + params.b_width;
  const int64_t i = column();
  if (i >= params.num_heads * out_width) return;
  const int64_t head = i / out_width;
  const int64_t at = i % out_width;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const Word* const a = static_cast<const Word*>(params.a) + row * params.a_stride;
    const Word* const b = static_cast<const Word*>(params.b) + row * params.b_stride;
    static_cast<Word*>(params.out)[row * params.out_stride + i] =
        at < params.a_width ? a[head * params.a_width + at]
                            : b[head * params.b_width + at - params.a_width];
  }
}

}  // namespace

Status embedding(TensorView table, TensorView ids, TensorView out, StreamView stream) {
  return gather("embedding", table, 0, ids, out, stream);
}

Status embedding_shard(
    TensorView table, int64_t first_id, TensorView ids, TensorView out, StreamView stream) {
  return gather("embedding_shard", table, first_id, ids, out, stream);
}

Status gather_rows(TensorView x, TensorView rows, TensorView out, StreamView stream) {
  return gather("gather_rows", x, 0, rows, out, stream);
}

Status concat(TensorView a, TensorView b, TensorView out, StreamView stream) {
  if (out.shape[0] == 0) return {};
  const auto bytes = static_cast<int64_t>(dtype_bytes(out.dtype));
  WordAlignment alignment;
  alignment.add_rows(a);
  alignment.add_rows(b);
  alignment.add_rows(out);
  alignment.add_bytes(a.shape[2] * bytes);
  alignment.add_bytes(b.shape[2] * bytes);
  return alignment.with_word([&]<typename Word>() {
    const ConcatParams params{a.data,
                              b.data,
                              out.data,
                              words_of<Word>(a.row_stride, a),
                              words_of<Word>(b.row_stride, b),
                              words_of<Word>(out.row_stride, out),
                              out.shape[0],
                              out.shape[1],
                              words_of<Word>(a.shape[2], a),
                              words_of<Word>(b.shape[2], b)};
    const RowGrid grid(params.num_rows, params.num_heads * (params.a_width + params.b_width));
    const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
    return lamina::cuda::to_status(launch(concat_kernel<Word>, how, params), "concat");
  });
}

}  // namespace lamina::kernels::cuda
