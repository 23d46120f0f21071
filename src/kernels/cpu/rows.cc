#include "kernels/cpu/rows.h"

#include <array>
#include <cstring>

#include "kernels/cpu/row_loop.h"
#include "kernels/ref/element.h"

namespace lamina::kernels::cpu {
namespace {

std::byte* row_of(const TensorView& view, int64_t row_idx) {
  return view.data + static_cast<size_t>(row_idx * view.row_stride) * dtype_bytes(view.dtype);
}

}  // namespace

void gather_rows(const TensorView& x,
                 const TensorView& rows,
                 const TensorView& out,
                 ThreadPool& pool) {
  for_each_row(out, pool, [&](int64_t s) {
    std::memcpy(row_of(out, s), row_of(x, *rows.row<int32_t>(s)), x.row_bytes());
  });
}

void unpack_rows(const PackedMatrix& table,
                 const TensorView& ids,
                 const TensorView& out,
                 ThreadPool& pool) {
  for_each_row(out, pool, [&](int64_t t) {
    for (int64_t block = 0; block < table.num_blocks(); ++block) {
      std::array<float, kBlockColumns> values{};
      table.get_block(*ids.row<int32_t>(t), block, values);
      for (size_t k = 0; k < values.size(); ++k) {
        ref::put(out, t, block * kBlockColumns + static_cast<int64_t>(k), values[k]);
      }
    }
  });
}

void embedding_shard(const TensorView& table,
                     int64_t first_id,
                     const TensorView& ids,
                     const TensorView& out,
                     ThreadPool& pool) {
  for_each_row(out, pool, [&](int64_t t) {
    const int64_t row = *ids.row<int32_t>(t) - first_id;
    if (row >= 0 && row < table.shape[0]) {
      std::memcpy(row_of(out, t), row_of(table, row), table.row_bytes());
    } else {
      std::memset(row_of(out, t), 0, out.row_bytes());
    }
  });
}

void concat(const TensorView& a, const TensorView& b, const TensorView& out, ThreadPool& pool) {
  const auto bytes_of = [](const TensorView& view) {
    return static_cast<size_t>(view.shape[2]) * dtype_bytes(view.dtype);
  };
  const size_t a_bytes = bytes_of(a);
  const size_t b_bytes = bytes_of(b);
  for_each_row(out, pool, [&](int64_t t) {
    const std::byte* from_a = row_of(a, t);
    const std::byte* from_b = row_of(b, t);
    std::byte* to = row_of(out, t);
    for (int64_t head = 0; head < out.shape[1]; ++head) {
      std::memcpy(to, from_a, a_bytes);
      std::memcpy(to + a_bytes, from_b, b_bytes);
      from_a += a_bytes;
      from_b += b_bytes;
      to += a_bytes + b_bytes;
    }
  });
}

}  // namespace lamina::kernels::cpu
