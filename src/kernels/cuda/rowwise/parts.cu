#include <fmt/format.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/word.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr size_t kMaxParts = 16;

// Of sums in elements, of columns in words.
struct PartsParams {
  const void* parts[kMaxParts];
  int64_t strides[kMaxParts];
  void* out;
  int64_t out_stride;
  int64_t num_rows;
  int64_t width;  // of a part
  int32_t num_parts;
  bool is_aligned;
};

Status check_count(std::string_view op, size_t num_parts) {
  if (num_parts <= kMaxParts) return {};
  return invalid_argument(
      fmt::format("{}: {} parts, of which GPUs take {}", op, num_parts, kMaxParts));
}

template <typename T>
__global__ void sum_kernel(const __grid_constant__ PartsParams params) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<T>;
  const int64_t begin = column() * kCount;
  const int64_t left = params.width - begin;
  if (left <= 0) return;
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    const auto load = [&](int part, float(&to)[kCount]) {
      const T* const from = static_cast<const T*>(params.parts[part]);
      load_upto(from + row * params.strides[part] + begin, left, params.is_aligned, to);
    };
    float sum[kCount];
    load(0, sum);
#pragma unroll 4
    for (int part = 1; part < params.num_parts; ++part) {
      float added[kCount];
      load(part, added);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum[i] += added[i];
    }
    T* const out = static_cast<T*>(params.out) + row * params.out_stride;
    store_upto(sum, out + begin, left, params.is_aligned);
  }
}

template <typename Word>
__global__ void join_kernel(const __grid_constant__ PartsParams params) {
  after_previous_kernel();
  const int64_t i = column();
  if (i >= params.num_parts * params.width) return;
  const auto part = static_cast<int>(i / params.width);
  const int64_t at = i % params.width;
  const Word* const from = static_cast<const Word*>(params.parts[part]) + at;
  Word* const out = static_cast<Word*>(params.out) + i;
  const int64_t stride = params.strides[part];
  for (int64_t row = first_row(); row < params.num_rows; row += row_step()) {
    out[row * params.out_stride] = from[row * stride];
  }
}

}  // namespace

Status sum_parts(std::span<const TensorView> parts, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_count("sum_parts", parts.size()));
  PartsParams params{};
  bool is_contiguous = out.is_contiguous();
  for (const TensorView& part : parts) {
    params.parts[params.num_parts] = part.data;
    params.strides[params.num_parts] = part.row_stride;
    ++params.num_parts;
    is_contiguous = is_contiguous && part.is_contiguous();
  }
  params.out = out.data;
  params.out_stride = out.row_stride;
  params.num_rows = is_contiguous ? 1 : out.shape[0];
  params.width = is_contiguous ? out.shape.num_elements() : out.row_elements();
  if (params.num_rows == 0 || params.width == 0) return {};
  params.is_aligned = has_aligned_rows(out, params.num_rows);
  for (const TensorView& part : parts) {
    params.is_aligned = params.is_aligned && has_aligned_rows(part, params.num_rows);
  }
  return with_element(out.dtype, [&]<typename T>() {
    const RowGrid grid(params.num_rows, ceil_div(params.width, int64_t{kVectorElements<T>}));
    const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
    return lamina::cuda::to_status(launch(sum_kernel<T>, how, params), "sum_parts");
  });
}

Status join_columns(std::span<const TensorView> parts, TensorView out, StreamView stream) {
  LAMINA_RETURN_IF_ERROR(check_count("join_columns", parts.size()));
  if (out.shape[0] == 0) return {};
  WordAlignment alignment;
  alignment.add_rows(out);
  alignment.add_bytes(static_cast<int64_t>(parts[0].row_bytes()));
  for (const TensorView& part : parts) alignment.add_rows(part);
  return alignment.with_word([&]<typename Word>() {
    PartsParams params{};
    for (const TensorView& part : parts) {
      params.parts[params.num_parts] = part.data;
      params.strides[params.num_parts] = words_of<Word>(part.row_stride, part);
      ++params.num_parts;
    }
    params.out = out.data;
    params.out_stride = words_of<Word>(out.row_stride, out);
    params.num_rows = out.shape[0];
    params.width = words_of<Word>(parts[0].row_elements(), out);
    const RowGrid grid(params.num_rows, params.num_parts * params.width);
    const Launch how = {grid.grid, grid.block, lamina::cuda::raw(stream)};
    return lamina::cuda::to_status(launch(join_kernel<Word>, how, params), "join_columns");
  });
}

}  // namespace lamina::kernels::cuda
