// For the tests of row-wise operators on CUDA: tensors whose rows lie apart, at addresses good for
// vectors or not, as columns of wider tensors do.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/cuda/testing/device_tensor.h"

namespace lamina::kernels {

// In elements.
struct RowLayout {
  int64_t before = 0;   // the first row
  int64_t between = 0;  // rows
};
inline constexpr RowLayout kRowLayouts[] = {{0, 0}, {8, 16}, {1, 3}, {0, 5}};

inline std::string name_of(const RowLayout& layout) {
  return std::to_string(layout.before) + "+" + std::to_string(layout.between);
}

// Widths with and without whole vectors, of lanes, warps and blocks.
inline constexpr int64_t kGpuWidths[] = {1, 7, 64, 100, 577, 4096, 5120};

// A copy of a tensor in GPU memory, in rows that lie as `layout` says among bytes of ones.
class DeviceRows {
 public:
  DeviceRows(const TestTensor& from, const RowLayout& layout)
      : like_(from), layout_(layout), memory_(spread(from, layout)) {}

  // One to be written: all of it is NaN.
  static DeviceRows poisoned(DType dtype, const Shape& shape, const RowLayout& layout) {
    TestTensor tensor(dtype, shape);
    tensor.poison();
    return {tensor, layout};
  }

  [[nodiscard]] TensorView view() const {
    TensorView rows = like_.view();
    rows.data = memory_.view().data + offset(0);
    rows.row_stride = stride();
    return rows;
  }
  // What is there once `stream` is done. Fails the test if something was written between the rows.
  [[nodiscard]] TestTensor to_host(StreamView stream) const {
    TestTensor wide = memory_.to_host(stream);
    TestTensor rows = like_;
    const TensorView to = rows.view();
    for (int64_t t = 0; t < to.shape[0]; ++t) {
      std::byte* const row = wide.view().data + offset(t);
      std::memcpy(to.data + static_cast<size_t>(t) * to.row_bytes(), row, to.row_bytes());
      std::memset(row, 0xFF, to.row_bytes());
    }
    TestTensor untouched = wide;
    untouched.poison();
    EXPECT_TRUE(wide == untouched) << "written between the rows of layout " << name_of(layout_);
    return rows;
  }

 private:
  [[nodiscard]] int64_t stride() const { return like_.view().row_elements() + layout_.between; }
  [[nodiscard]] size_t offset(int64_t row) const {
    return static_cast<size_t>(layout_.before + row * stride()) * dtype_bytes(like_.view().dtype);
  }
  static TestTensor spread(const TestTensor& from, const RowLayout& layout) {
    const TensorView rows = from.view();
    const int64_t stride = rows.row_elements() + layout.between;
    TestTensor wide(rows.dtype, {layout.before + rows.shape[0] * stride});
    wide.poison();
    for (int64_t t = 0; t < rows.shape[0]; ++t) {
      const size_t at = static_cast<size_t>(layout.before + t * stride) * dtype_bytes(rows.dtype);
      std::memcpy(wide.view().data + at,
                  rows.data + static_cast<size_t>(t) * rows.row_bytes(),
                  rows.row_bytes());
    }
    return wide;
  }

  TestTensor like_;
  RowLayout layout_;
  DeviceTensor memory_;
};

}  // namespace lamina::kernels
