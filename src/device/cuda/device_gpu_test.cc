// What a step brings to a GPU, and memsets of captured graphs. Tests skip where there is no GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/unique_handle.h"
#include "device/buffer.h"
#include "device/cuda/error.h"
#include "device/cuda/graph_memsets.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "device/gpu_stream.h"
#include "device/upload.h"

namespace lamina {
namespace {

class DeviceGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() == 0) GTEST_SKIP() << "no GPU";
    stream_.emplace(Device{DeviceKind::kCuda, 0});
    use_device_of(stream_->view());
  }

  [[nodiscard]] StreamView stream() const { return stream_->view(); }

  // Memory of the GPU, as the host sees it once the stream is done.
  [[nodiscard]] std::vector<uint8_t> bytes_of(const Buffer& memory) const {
    Buffer staged(MemoryKind::kPinnedHost, memory.size_bytes());
    throw_if_error(copy(staged.data(), memory.data(), memory.size_bytes(), stream()));
    throw_if_error(synchronize(stream()));
    const auto* begin = reinterpret_cast<const uint8_t*>(staged.data());
    return {begin, begin + staged.size_bytes()};
  }

 private:
  std::optional<GpuStream> stream_;
};

struct GraphTraits {
  using Raw = cudaGraph_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept { cudaGraphDestroy(raw); }
};
struct ExecutableTraits {
  using Raw = cudaGraphExec_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept { cudaGraphExecDestroy(raw); }
};

constexpr size_t kPitch = 64;
constexpr size_t kWidth = 5;
constexpr size_t kHeight = 3;

uint8_t old_byte(size_t i) {
  return static_cast<uint8_t>(1 + i % 100);
}

// A graph of a memset between two copies: what is there comes from `from`, goes to `to` afterwards.
void add_nodes(cudaGraph_t graph,
               const Buffer& from,
               const Buffer& memory,
               const Buffer& to,
               unsigned element_bytes) {
  const auto add_copy = [&](const Buffer& source, const Buffer& target, cudaGraphNode_t* after) {
    cudaGraphNode_t node = nullptr;
    cuda::throw_if_error(cudaGraphAddMemcpyNode1D(&node,
                                                  graph,
                                                  after,
                                                  after == nullptr ? 0 : 1,
                                                  target.data(),
                                                  source.data(),
                                                  source.size_bytes(),
                                                  cudaMemcpyDeviceToDevice),
                         "a copy");
    return node;
  };
  cudaGraphNode_t before = add_copy(from, memory, nullptr);
  cudaMemsetParams params{};
  params.dst = memory.data();
  params.elementSize = element_bytes;
  params.width = kWidth;
  params.height = kHeight;
  params.pitch = kPitch;
  params.value = 0xA1B2C3D4U & (element_bytes == 4 ? ~0U : (1U << (8 * element_bytes)) - 1);
  cudaGraphNode_t memset = nullptr;
  cuda::throw_if_error(cudaGraphAddMemsetNode(&memset, graph, &before, 1, &params), "a memset");
  add_copy(memory, to, &memset);
}

TEST_F(DeviceGpuTest, KernelsDoWhatAGraphsMemsetsDid) {
  constexpr std::array<uint8_t, 4> kValue = {0xD4, 0xC3, 0xB2, 0xA1};
  for (const unsigned element_bytes : {1U, 2U, 4U}) {
    Buffer from(MemoryKind::kCuda, kPitch * kHeight);
    Buffer memory(MemoryKind::kCuda, from.size_bytes());
    Buffer to(MemoryKind::kCuda, from.size_bytes());
    Buffer staged(MemoryKind::kPinnedHost, from.size_bytes());
    std::vector<uint8_t> wanted(from.size_bytes());
    for (size_t i = 0; i < wanted.size(); ++i) {
      wanted[i] = old_byte(i);
      staged.data()[i] = std::byte{wanted[i]};
      const bool is_set = i % kPitch < kWidth * element_bytes;
      if (is_set) wanted[i] = kValue[i % kPitch % element_bytes];
    }
    throw_if_error(copy(from.data(), staged.data(), staged.size_bytes(), stream()));
    cudaGraph_t raw = nullptr;
    cuda::throw_if_error(cudaGraphCreate(&raw, 0), "a graph");
    const UniqueHandle<GraphTraits> graph(raw);
    add_nodes(raw, from, memory, to, element_bytes);
    ASSERT_TRUE(cuda::replace_memsets(raw).ok());

    std::array<cudaGraphNode_t, 3> nodes{};
    size_t count = nodes.size();
    cuda::throw_if_error(cudaGraphGetNodes(raw, nodes.data(), &count), "nodes");
    EXPECT_EQ(count, nodes.size());
    for (cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type{};
      cuda::throw_if_error(cudaGraphNodeGetType(node, &type), "a node's type");
      EXPECT_NE(type, cudaGraphNodeTypeMemset);
    }
    cudaGraphExec_t executable = nullptr;
    cuda::throw_if_error(cudaGraphInstantiate(&executable, raw, 0), "instantiating");
    const UniqueHandle<ExecutableTraits> owner(executable);
    cuda::throw_if_error(cudaGraphLaunch(executable, cuda::raw(stream())), "launching");
    EXPECT_EQ(bytes_of(to), wanted) << element_bytes;
  }
}

TEST_F(DeviceGpuTest, PiecesAreUploadedAndNothingElse) {
  constexpr size_t kBytes = 1 << 20;
  Buffer from(MemoryKind::kPinnedHost, kBytes);
  Buffer to(MemoryKind::kCuda, kBytes);
  const std::vector<uint8_t> before = bytes_of(to);
  for (size_t i = 0; i < kBytes; ++i) from.data()[i] = std::byte{old_byte(i)};
  // More than one launch takes, small ones with a large one among them.
  std::vector<UploadPiece> pieces;
  for (uint32_t i = 0; i < 200; ++i)
    pieces.push_back({.begin = 64 * i, .end = 64 * i + 1 + i % 16});
  pieces.push_back({.begin = 512 << 10, .end = (512 << 10) + 300'007});
  ASSERT_TRUE(upload(to.data(), from.data(), pieces, stream()).ok());

  std::vector<uint8_t> wanted = before;
  for (const UploadPiece& piece : pieces) {
    const size_t end = (piece.end + kUploadAlignment - 1) / kUploadAlignment * kUploadAlignment;
    for (size_t i = piece.begin; i < end; ++i) wanted[i] = old_byte(i);
  }
  EXPECT_EQ(bytes_of(to), wanted);
}

}  // namespace
}  // namespace lamina
