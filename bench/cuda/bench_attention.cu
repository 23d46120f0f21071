// Decode attention on a GPU beside what the bandwidth of its memory and the rate of its products
// allow, all measured in one run. Prints a line a case; asserts nothing. An argument names the one
// part to run: latent, heads or codes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/testing/measure.cuh"
#include "kernels/cuda/testing/paged_case.cuh"

namespace lamina::kernels::cuda::testing {
namespace {

// Products without anything to load, eight sums at once in each warp.
__global__ void multiply_only(int rounds, float* sink) {
  constexpr int kSums = 8;
  float sums[kSums][4] = {};
  const uint32_t a[4] = {threadIdx.x, 0, 0, 0};
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (auto& each : sums) multiply_add<__nv_bfloat16>(each, a, 0, 0);
  }
  for (const auto& each : sums) {
    if (each[0] != 0.0F) *sink = each[0];
  }
}

// Operations per second of the instruction that the kernels multiply by.
double measure_products(int num_sms) {
  constexpr int kRounds = 20'000;
  constexpr int kWarps = 16;
  constexpr double kOperations = 2.0 * 16 * 8 * 16 * 8 * kRounds * kWarps;
  const DeviceArray<float> sink(1);
  const double seconds = median_seconds(4, [&](int /*call*/, cudaStream_t stream) {
    multiply_only<<<num_sms, kWarps * 32, 0, stream>>>(kRounds, sink.data());
  });
  return kOperations * num_sms / seconds;
}

// Bytes and operations of a step that meets all keys: one query a sequence.
struct Cost {
  double bytes = 0.0;
  double operations = 0.0;
};

// What the card can do.
struct Ceilings {
  double read_bytes;  // per second
  double operations;  // the same

  [[nodiscard]] double least_seconds(const Cost& cost) const {
    return std::max(cost.bytes / read_bytes, cost.operations / operations);
  }
};

template <typename Cached>
Cost cost_of(const CaseShape& shape) {
  Cost cost;
  const double dims = shape.head_dim + shape.value_dim();
  const double row = (shape.is_latent() ? shape.head_dim : dims) * sizeof(Cached) +
                     (is_code<Cached> ? 2 * sizeof(float) : 0);
  for (const int32_t len : shape.context_len) {
    cost.bytes += row * len * shape.num_kv_heads;
    cost.operations += 2.0 * dims * len * shape.num_heads;
  }
  return cost;
}

template <typename Cached = __nv_bfloat16>
void bench(const Ceilings& ceilings, const char* name, const CaseShape& shape) {
  const Cost cost = cost_of<Cached>(shape);
  // Enough copies that the cache holds little of the next one.
  const int copies = std::max(2, static_cast<int>(1.0e9 / cost.bytes));
  std::vector<std::unique_ptr<PagedCase<__nv_bfloat16, Cached>>> cases;
  for (int i = 0; i < copies; ++i) {
    cases.push_back(std::make_unique<PagedCase<__nv_bfloat16, Cached>>(shape, i));
  }
  const int num_calls = std::max(2 * copies, 20);
  const double seconds = median_seconds(num_calls, [&](int call, cudaStream_t stream) {
    LAMINA_REQUIRE_CUDA(
        cases[static_cast<size_t>(call % copies)]->launch(stream, cases.front().get()));
  });
  const double least = ceilings.least_seconds(cost);
  std::printf(
      "%-8s heads %3d/%2d of %3d block %3d  B %3zu S %5d  %8.1f us  %6.0f GB/s  %4.0f TFLOP/s  "
      "%8.1f us at least: %.3f\n",
      name,
      shape.num_heads,
      shape.num_kv_heads,
      shape.head_dim,
      shape.block_size,
      shape.context_len.size(),
      shape.context_len.front(),
      1e6 * seconds,
      cost.bytes / seconds / 1e9,
      cost.operations / seconds / 1e12,
      1e6 * least,
      least / seconds);
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

CaseShape latent(int32_t num_heads, int32_t batch, int32_t context) {
  CaseShape shape = decode(1, 64, batch, context);
  shape.num_heads = num_heads;
  shape.head_dim = kLatentKeyDim;
  return shape;
}

// Lengths between a half and one and a half of the context.
CaseShape ragged(CaseShape shape) {
  for (size_t b = 0; b < shape.context_len.size(); ++b) {
    const float random = random_value(7, b);
    shape.context_len[b] += static_cast<int32_t>(0.5F * random * shape.context_len[b]);
  }
  return shape;
}

void bench_latent(const Ceilings& ceilings) {
  for (const int32_t num_heads : {16, 32, 64, 128}) {
    for (const auto& [batch, context] :
         {std::pair{16, 4096}, {64, 4096}, {16, 16384}, {128, 2048}, {1, 65536}}) {
      bench(ceilings, "latent", latent(num_heads, batch, context));
      bench(ceilings, "ragged", ragged(latent(num_heads, batch, context)));
    }
  }
}

template <typename Cached>
void bench_heads(const Ceilings& ceilings, const char* even_name, const char* ragged_name) {
  for (const int32_t kv_heads : {8, 64}) {
    for (const auto& [batch, context] :
         {std::pair{16, 4096}, {64, 4096}, {16, 16384}, {128, 2048}, {20, 1024}}) {
      if (kv_heads == 64 && batch * context > 262144) continue;  // 8.6 GB and no more
      for (const int32_t block_size : {16, 64}) {
        const CaseShape shape = decode(kv_heads, block_size, batch, context);
        bench<Cached>(ceilings, even_name, shape);
        bench<Cached>(ceilings, ragged_name, ragged(shape));
      }
    }
  }
}

void run(std::string_view part) {
  cudaDeviceProp card{};
  LAMINA_REQUIRE_CUDA(cudaGetDeviceProperties(&card, 0));
  const Ceilings ceilings = {measure_read(card.multiProcessorCount),
                             measure_products(card.multiProcessorCount)};
  std::printf("%s, %d multiprocessors: reads %.0f GB/s, multiplies %.0f TFLOP/s\n",
              card.name,
              card.multiProcessorCount,
              ceilings.read_bytes / 1e9,
              ceilings.operations / 1e12);
  if (part.empty() || part == "latent") bench_latent(ceilings);
  if (part.empty() || part == "heads") bench_heads<__nv_bfloat16>(ceilings, "even", "ragged");
  if (part.empty() || part == "codes") {
    bench_heads<E4M3>(ceilings, "fp8", "fp8 rag.");
    bench_heads<I8>(ceilings, "int8", "int8 rag.");
  }
}

}  // namespace
}  // namespace lamina::kernels::cuda::testing

int main(int argc, char** argv) {
  lamina::kernels::cuda::testing::run(argc > 1 ? argv[1] : "");
  return 0;
}
