// Products of few rows on a GPU beside cuBLASLt's, where it is there, and beside the bandwidth of
// the memory, all measured in one run: single products, and those of a layer in turn. Prints a line
// a case; asserts nothing.
//   lamina_bench_cuda_product [rows...]     1 8 16 32 64 128 if there are none
#include <cuda_bf16.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/products/narrow_product.h"
#include "kernels/cuda/testing/measure.cuh"
#include "product_peer.h"

namespace lamina::kernels::cuda::testing {
namespace {

using Element = __nv_bfloat16;

struct Shape {
  int64_t width;
  int64_t depth;
  bool out_is_f32 = false;

  [[nodiscard]] double bytes() const {
    return static_cast<double>(width) * static_cast<double>(depth) * sizeof(Element);
  }
};

struct Case {
  const char* name;
  std::vector<Shape> shapes;  // multiplied in turn
};

const Case kCases[] = {{"8B qkv", {{6144, 4096}}},
                       {"8B o", {{4096, 4096}}},
                       {"8B gate_up", {{28672, 4096}}},
                       {"8B down", {{4096, 14336}}},
                       {"8B head", {{128256, 4096, true}}},
                       {"8B layer", {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}}},
                       {"33B qkv", {{19968, 6656}}},
                       {"33B o", {{6656, 6656}}},
                       {"33B gate_up", {{35840, 6656}}},
                       {"33B down", {{6656, 17920}}},
                       {"33B layer", {{19968, 6656}, {6656, 6656}, {35840, 6656}, {6656, 17920}}},
                       {"70B qkv", {{10240, 8192}}},
                       {"70B o", {{8192, 8192}}},
                       {"70B gate_up", {{57344, 8192}}},
                       {"70B down", {{8192, 28672}}},
                       {"70B layer", {{10240, 8192}, {8192, 8192}, {57344, 8192}, {8192, 28672}}}};

constexpr int64_t kMostTokens = 128;
constexpr int64_t kMostColumns = 128256;
constexpr int64_t kMostDepth = 28672;
// Of all weights that calls go through: more than a cache holds.
constexpr double kRotatedBytes = 1.0e9;

class Bench {
 public:
  explicit Bench(double read_bytes)
      : read_bytes_(read_bytes),
        x_(kMostTokens * kMostDepth),
        out_(kMostTokens * kMostColumns),
        queue_(kNarrowQueueBytes / sizeof(int32_t)) {
    fill_random(x_, 1);
    queue_.fill_bytes(0);
  }

  void run(const Case& product, const std::vector<int64_t>& nums_tokens) {
    double bytes = 0.0;
    for (const Shape& shape : product.shapes) bytes += shape.bytes();
    const int copies = std::max(2, static_cast<int>(kRotatedBytes / bytes));
    // Of each copy, one matrix after the other.
    const auto copy_size = static_cast<size_t>(bytes) / sizeof(Element);
    const DeviceArray<Element> weights(copy_size * static_cast<size_t>(copies));
    fill_random(weights, 2);
    const int num_calls = std::max(2 * copies, 20);
    const auto seconds_of = [&](int64_t num_tokens, const auto& multiply) {
      return median_seconds(num_calls, [&](int call, cudaStream_t stream) {
        const Element* weight = weights.data() + copy_size * static_cast<size_t>(call % copies);
        for (const Shape& shape : product.shapes) {
          multiply(product_of(shape, weight, num_tokens), stream);
          weight += shape.width * shape.depth;
        }
      });
    };
    for (const int64_t num_tokens : nums_tokens) {
      std::printf("%-12s T %3d", product.name, static_cast<int>(num_tokens));
      if (num_tokens <= kMaxNarrowTokens) {
        const double seconds = seconds_of(num_tokens, [](const NarrowProduct& p, cudaStream_t s) {
          LAMINA_REQUIRE_CUDA(launch_narrow_product(p, s));
        });
        print("ours", seconds, bytes);
      }
      bool has_peer = true;
      const double seconds = seconds_of(num_tokens, [&](const NarrowProduct& p, cudaStream_t s) {
        has_peer = bench::multiply_by_peer(p, s);
      });
      if (has_peer) print("cuBLASLt", seconds, bytes);
      std::printf("\n");
      std::fflush(stdout);
    }
  }

 private:
  void print(const char* who, double seconds, double bytes) const {
    std::printf("   %s %8.1f us %6.0f GB/s %.3f",
                who,
                1e6 * seconds,
                bytes / seconds / 1e9,
                bytes / seconds / read_bytes_);
  }

  [[nodiscard]] NarrowProduct product_of(const Shape& shape,
                                         const Element* weight,
                                         int64_t num_tokens) const {
    return {.x = x_.data(),
            .weight = weight,
            .bias = nullptr,
            .out = out_.data(),
            .queue = queue_.data(),
            .element = ElementKind::kBF16,
            .out_element = shape.out_is_f32 ? ElementKind::kF32 : ElementKind::kBF16,
            .num_tokens = num_tokens,
            .width = shape.width,
            .depth = shape.depth,
            .x_stride = shape.depth,
            .weight_stride = shape.depth,
            .out_stride = shape.width};
  }

  double read_bytes_;
  DeviceArray<Element> x_;
  DeviceArray<float> out_;
  DeviceArray<int32_t> queue_;
};

void run(const std::vector<int64_t>& nums_tokens) {
  cudaDeviceProp card{};
  LAMINA_REQUIRE_CUDA(cudaGetDeviceProperties(&card, 0));
  const double read_bytes = measure_read(card.multiProcessorCount);
  std::printf("%s, %d multiprocessors: reads %.0f GB/s\n",
              card.name,
              card.multiProcessorCount,
              read_bytes / 1e9);
  Bench bench(read_bytes);
  for (const Case& product : kCases) bench.run(product, nums_tokens);
}

}  // namespace
}  // namespace lamina::kernels::cuda::testing

int main(int argc, char** argv) {
  std::vector<int64_t> nums_tokens;
  for (int i = 1; i < argc; ++i) nums_tokens.push_back(std::atoi(argv[i]));
  if (nums_tokens.empty()) nums_tokens = {1, 8, 16, 32, 64, 128};
  lamina::kernels::cuda::testing::run(nums_tokens);
  return 0;
}
