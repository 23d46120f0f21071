// Decode attention on a GPU beside the bandwidth of its memory, both measured in one run. Prints a
// line a case; asserts nothing.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/cuda/testing/measure.cuh"
#include "kernels/cuda/testing/paged_case.cuh"

namespace lamina::kernels::cuda::testing {
namespace {

void bench(double read_bytes, const char* name, const CaseShape& shape) {
  double bytes = 0.0;
  for (const int32_t len : shape.context_len) {
    bytes += 2.0 * len * shape.num_kv_heads * shape.head_dim * sizeof(__nv_bfloat16);
  }
  // Enough copies that the cache holds little of the next one.
  const int copies = std::max(2, static_cast<int>(1.0e9 / bytes));
  std::vector<std::unique_ptr<PagedCase<__nv_bfloat16>>> cases;
  for (int i = 0; i < copies; ++i) {
    cases.push_back(std::make_unique<PagedCase<__nv_bfloat16>>(shape, i));
  }
  const int num_calls = std::max(2 * copies, 20);
  const double seconds = median_seconds(num_calls, [&](int call, cudaStream_t stream) {
    LAMINA_REQUIRE_CUDA(
        cases[static_cast<size_t>(call % copies)]->launch(stream, cases.front().get()));
  });
  std::printf("%-8s heads %2d/%2d of %3d block %3d  B %3zu S %5d  %8.1f us  %6.0f GB/s  %.3f\n",
              name,
              shape.num_heads,
              shape.num_kv_heads,
              shape.head_dim,
              shape.block_size,
              shape.context_len.size(),
              shape.context_len.front(),
              1e6 * seconds,
              bytes / seconds / 1e9,
              bytes / seconds / read_bytes);
  std::fflush(stdout);
}

CaseShape decode(int32_t kv_heads, int32_t block_size, int32_t batch, int32_t context) {
  const auto size = static_cast<size_t>(batch);
  return {64,
          kv_heads,
          128,
          block_size,
          std::vector<int32_t>(size, 1),
          std::vector<int32_t>(size, context)};
}

// Lengths between a half and one and a half of the context.
CaseShape ragged(CaseShape shape) {
  for (size_t b = 0; b < shape.context_len.size(); ++b) {
    const float random = random_value(7, b);
    shape.context_len[b] += static_cast<int32_t>(0.5F * random * shape.context_len[b]);
  }
  return shape;
}

void run() {
  cudaDeviceProp card{};
  LAMINA_REQUIRE_CUDA(cudaGetDeviceProperties(&card, 0));
  const double read_bytes = measure_read(card.multiProcessorCount);
  std::printf("%s, %d multiprocessors: reads %.0f GB/s\n",
              card.name,
              card.multiProcessorCount,
              read_bytes / 1e9);
  for (const int32_t kv_heads : {8, 64}) {
    for (const auto& [batch, context] :
         {std::pair{16, 4096}, {64, 4096}, {16, 16384}, {128, 2048}, {20, 1024}}) {
      if (kv_heads == 64 && batch * context > 262144) continue;  // 8.6 GB and no more
      for (const int32_t block_size : {16, 64}) {
        bench(read_bytes, "even", decode(kv_heads, block_size, batch, context));
        bench(read_bytes, "ragged", ragged(decode(kv_heads, block_size, batch, context)));
      }
    }
  }
}

}  // namespace
}  // namespace lamina::kernels::cuda::testing

int main() {
  lamina::kernels::cuda::testing::run();
  return 0;
}
