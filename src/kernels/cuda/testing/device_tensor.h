// For the tests of operators on CUDA: tensors of the host's tests, in GPU memory, and a stream.
// Tests skip where there is no GPU.
#pragma once

#include <gtest/gtest.h>

#include "device/buffer.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "kernels/test_tensors.h"

namespace lamina::kernels {

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (lamina::cuda::num_devices() == 0) GTEST_SKIP() << "no GPU";
    stream_ = lamina::cuda::make_stream(kDevice);
  }
  [[nodiscard]] StreamView stream() const { return lamina::cuda::view(stream_, kDevice); }

  static constexpr Device kDevice = {DeviceKind::kCuda, 0};

 private:
  lamina::cuda::Stream stream_;
};

// A copy of a tensor in GPU memory.
class DeviceTensor {
 public:
  DeviceTensor() = default;
  // Of the empty view that a test leaves out, the same.
  explicit DeviceTensor(const TestTensor& from) : host_(from.view()) {
    if (host_.empty()) return;
    memory_ = Buffer(MemoryKind::kCuda, std::max<size_t>(1, host_.size_bytes()));
    copy_now(memory_.data(), host_.data);
  }

  [[nodiscard]] TensorView view() const {
    if (host_.empty()) return {};
    return {memory_.data(), host_.dtype, host_.shape};
  }
  // What is there once `stream` is done.
  [[nodiscard]] TestTensor to_host(StreamView stream) const {
    throw_if_error(synchronize(stream));
    TestTensor tensor(host_.dtype, host_.shape);
    copy_now(tensor.view().data, memory_.data());
    return tensor;
  }

 private:
  void copy_now(void* to, const void* from) const {
    const lamina::cuda::Stream own = lamina::cuda::make_stream({DeviceKind::kCuda, 0});
    const StreamView stream = lamina::cuda::view(own, {DeviceKind::kCuda, 0});
    throw_if_error(copy(to, from, host_.size_bytes(), stream));
    throw_if_error(synchronize(stream));
  }

  TensorView host_;  // its dtype and shape
  Buffer memory_;
};

}  // namespace lamina::kernels
