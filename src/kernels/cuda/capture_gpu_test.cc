// That the row-wise operators can be captured in a CUDA graph, which is how decode steps run.
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "device/cuda/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/testing/device_rows.h"
#include "kernels/norm.h"
#include "kernels/parts.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"
#include "kernels/rows.h"

namespace lamina::kernels {
namespace {

// A layer's worth of them, each of which reads what those before it wrote.
class CaptureGpuTest : public CudaTest {
 protected:
  static constexpr int64_t kRows = 3;
  static constexpr int64_t kHeads = 4;
  static constexpr int64_t kHeadDim = 24;
  static constexpr int64_t kWidth = kHeads * kHeadDim;
  static constexpr DType kDType = DType::kBF16;

  struct Tensors {
    Tensors() {
      Rng rng(1);
      table = DeviceTensor(TestTensor::random(kDType, {9, kWidth}, rng));
      weight = DeviceTensor(TestTensor::random(kDType, {kWidth}, rng));
      partial = DeviceTensor(TestTensor::random(DType::kF32, {kRows, kHeads, kHeadDim}, rng));
      partial_lse = DeviceTensor(TestTensor::random(DType::kF32, {kRows, kHeads}, rng));
    }

    DeviceTensor table;
    DeviceTensor weight;
    DeviceTensor partial;
    DeviceTensor partial_lse;
    DeviceTensor ids{TestTensor::of_i32({4, 0, 8})};
    DeviceTensor x{TestTensor(kDType, {kRows, kWidth})};
    DeviceTensor both{TestTensor(kDType, {kRows, 2, kWidth})};
    DeviceTensor gated{TestTensor(kDType, {kRows, kWidth})};
    DeviceTensor angles{TestTensor(DType::kF32, {kRows, kHeadDim})};
    DeviceTensor heads{TestTensor(kDType, {kRows, kHeads, 2 * kHeadDim})};
    DeviceTensor sum{TestTensor(kDType, {kRows, kWidth})};
    DeviceTensor joined{TestTensor(kDType, {kRows, 2 * kWidth})};
    DeviceTensor merged{TestTensor(DType::kF32, {kRows, kHeads, kHeadDim})};
    DeviceTensor merged_lse{TestTensor(DType::kF32, {kRows, kHeads})};
  };

  [[nodiscard]] Status enqueue(const Tensors& all) const {
    const TensorView x = all.x.view();
    TensorView x_heads = x;
    x_heads.shape = {kRows, kHeads, kHeadDim};
    const std::array<float, kHeadDim / 2> inv_freq = {1.0F, 0.5F, 0.25F};
    const std::array<TensorView, 2> parts = {x, all.gated.view()};
    LAMINA_RETURN_IF_ERROR(embedding(all.table.view(), all.ids.view(), x, stream()));
    LAMINA_RETURN_IF_ERROR(add_norm({x, x, all.weight.view(), {}, all.both.view(), {}}, stream()));
    LAMINA_RETURN_IF_ERROR(gated_activation(all.both.view(), {}, all.gated.view(), stream()));
    LAMINA_RETURN_IF_ERROR(rope_table(all.ids.view(), inv_freq, 1.0F, all.angles.view(), stream()));
    LAMINA_RETURN_IF_ERROR(rope(x_heads, all.angles.view(), false, x_heads, stream()));
    LAMINA_RETURN_IF_ERROR(concat(x_heads, x_heads, all.heads.view(), stream()));
    LAMINA_RETURN_IF_ERROR(sum_parts(parts, all.sum.view(), stream()));
    LAMINA_RETURN_IF_ERROR(
        norm({all.sum.view(), all.weight.view(), {}, all.sum.view(), {}}, stream()));
    LAMINA_RETURN_IF_ERROR(join_columns(parts, all.joined.view(), stream()));
    return merge_partials({all.merged.view(), all.merged_lse.view()},
                          {all.partial.view(), all.partial_lse.view()},
                          stream());
  }

  [[nodiscard]] std::vector<TestTensor> results(const Tensors& all) const {
    std::vector<TestTensor> found;
    for (const DeviceTensor* tensor : {&all.x,
                                       &all.both,
                                       &all.gated,
                                       &all.heads,
                                       &all.sum,
                                       &all.joined,
                                       &all.merged,
                                       &all.merged_lse}) {
      found.push_back(tensor->to_host(stream()));
    }
    return found;
  }
};

TEST_F(CaptureGpuTest, AGraphDoesWhatItsOperatorsDo) {
  const Tensors direct;
  const Tensors captured;
  throw_if_error(synchronize(stream()));
  ASSERT_TRUE(enqueue(direct).ok());
  const std::vector<TestTensor> expected = results(direct);

  const auto ok = [](cudaError_t error) { return lamina::cuda::to_status(error, "graph").ok(); };
  const cudaStream_t raw = lamina::cuda::raw(stream());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_TRUE(ok(cudaStreamBeginCapture(raw, cudaStreamCaptureModeThreadLocal)));
  const Status status = enqueue(captured);
  ASSERT_TRUE(ok(cudaStreamEndCapture(raw, &graph)));
  ASSERT_TRUE(status.ok()) << status.to_string();
  size_t num_nodes = 0;
  ASSERT_TRUE(ok(cudaGraphGetNodes(graph, nullptr, &num_nodes)));
  EXPECT_EQ(num_nodes, 10U);  // a launch for each operator
  ASSERT_TRUE(ok(cudaGraphInstantiate(&exec, graph, 0)));
  ASSERT_TRUE(ok(cudaGraphLaunch(exec, raw)));
  const std::vector<TestTensor> actual = results(captured);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(actual[i], expected[i]) << "result " << i;
  EXPECT_TRUE(ok(cudaGraphExecDestroy(exec)));
  EXPECT_TRUE(ok(cudaGraphDestroy(graph)));
}

}  // namespace
}  // namespace lamina::kernels
