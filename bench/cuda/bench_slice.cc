// Slices of a model on one GPU, as decoding replays them, beside the bare products of the same
// weights by cuBLASLt in the same order: what everything else in a slice costs, and what our own
// products gain. Many layers take turns, so that weights come from memory. Prints a line a batch;
// asserts nothing.
//   lamina_bench_cuda_slice [model [layers]]     llama-3-70b (default) with 8 layers (default)
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"
#include "exec/slice_executor.h"
#include "kernels/cuda/products/blas_lt.h"
#include "random_model.h"

namespace lamina::bench {
namespace {

constexpr Device kDevice = {DeviceKind::kCuda, 0};
constexpr int32_t kWarmUps = 3;
constexpr int32_t kRuns = 15;

// Attention that takes no time.
class NoAttention final : public AttentionPort {
 public:
  Status send_q(int32_t /*attention_idx*/, TensorView /*q*/) override { return {}; }
  Status send_kv(int32_t /*attention_idx*/, TensorView /*k*/, TensorView /*v*/) override {
    return {};
  }
  Status receive(int32_t /*attention_idx*/, TensorView /*out*/) override { return {}; }
  [[nodiscard]] std::optional<uint64_t> launch_shape() const override { return 0; }
};

// The products of the slices between the first attention and the last one.
std::vector<kernels::cuda::Product> products_of(const SlicedModel& model,
                                                const RandomWeights& weights,
                                                int32_t batch,
                                                const Buffer& x,
                                                const Buffer& out) {
  std::vector<kernels::cuda::Product> products;
  for (size_t s = 1; s + 1 < model.slices.size(); ++s) {
    for (const Instruction& instruction : model.slices[s].program) {
      if (instruction.kind != InstructionKind::kCompute) continue;
      const Node& node = model.graph.node(instruction.node);
      if (node.kind != OpKind::kLinear) continue;
      const TensorView weight = weights.get(model.graph.node(node.inputs[1]).name);
      products.push_back({.x = x.data(),
                          .weight = weight.data,
                          .out = out.data(),
                          .dtype = DType::kBF16,
                          .out_dtype = DType::kBF16,
                          .num_rows = batch,
                          .num_columns = weight.shape[0],
                          .depth = weight.shape[1],
                          .x_strides = {.row_stride = weight.shape[1]},
                          .weight_strides = {.row_stride = weight.shape[1]},
                          .out_strides = {.row_stride = weight.shape[0]}});
    }
  }
  return products;
}

double time_products(const std::vector<kernels::cuda::Product>& products, StreamView stream) {
  const auto multiply_all = [&]() -> Status {
    for (const kernels::cuda::Product& product : products) {
      LAMINA_RETURN_IF_ERROR(kernels::cuda::multiply(product, stream));
    }
    return {};
  };
  throw_if_error(multiply_all());
  Result<GpuGraph> graph = GpuGraph::capture(stream, multiply_all);
  throw_if_error(graph.status());
  return median_seconds(kWarmUps, kRuns, stream, [&] { throw_if_error(graph->launch(stream)); });
}

double time_slices(SliceExecutor& executor, int32_t batch, StreamView stream) {
  const std::vector<int32_t> numbers(static_cast<size_t>(batch), 1);
  std::vector<int32_t> rows(static_cast<size_t>(batch));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  NoAttention attention;
  throw_if_error(
      executor.begin(0, {.token_ids = numbers, .positions = numbers, .logits_rows = rows}));
  throw_if_error(executor.run_slice(0, 0, attention));
  return median_seconds(kWarmUps, kRuns, stream, [&] {
    for (int32_t slice = 1; slice + 1 < executor.num_slices(); ++slice) {
      throw_if_error(executor.run_slice(0, slice, attention));
    }
  });
}

void run(const std::string& name, int64_t num_layers) {
  constexpr int32_t kMostTokens = 1024;
  const GpuStream stream(kDevice);
  stream.view().adopt_this_thread();
  const SlicedModel model = llama_model(name, num_layers);
  const RandomWeights weights(model.graph, stream.view());
  SliceExecutor executor(model,
                         weights,
                         {.max_tokens = kMostTokens, .max_logits_rows = kMostTokens},
                         /*num_micro_batches=*/1,
                         stream.view());
  constexpr size_t kMostWidth = 65536;
  const Buffer x = random_numbers(kMostTokens * kMostWidth, stream.view());
  const Buffer out(MemoryKind::kCuda, kMostTokens * kMostWidth * sizeof(BFloat16));
  fmt::print("{}, slices of {} layers\n", name, num_layers - 1);
  for (const int32_t batch : {1, 8, 16, 32, 64, 128, 256, 512, 1024}) {
    const double slices = time_slices(executor, batch, stream.view());
    const double products =
        time_products(products_of(model, weights, batch, x, out), stream.view());
    fmt::print("B {:4}   a slice {:8.1f} us   bare products {:8.1f} us   {:.3f}\n",
               batch,
               1e6 * slices / static_cast<double>(num_layers - 1),
               1e6 * products / static_cast<double>(num_layers - 1),
               products / slices);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  if (lamina::cuda::num_devices() == 0) {
    fmt::print("skipped: no GPU\n");
    return 0;
  }
  try {
    lamina::bench::run(argc > 1 ? argv[1] : "llama-3-70b", argc > 2 ? std::atoi(argv[2]) : 8);
  } catch (const lamina::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
