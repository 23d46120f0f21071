// A model on a GPU with its attention on the same host's CPUs, beside the same model colocated:
// decoding steps of random weights and dummy tokens, through what `lamina serve` places, as many
// sequences as memory lets run. Beside each its bound, of rates that are measured first: colocated,
// weights and keys read once; over CPUs the most of max(n t_a, n t_m, t_m + t_a + t_n) for n
// micro-batches, t_a being keys read by all cores, t_m weights read by the card, t_n q, k, v and
// outputs over the link. Prints a line a point; asserts nothing.
//   lamina_bench_cuda_pool [model [layers [flags of lamina serve]]]
// llama-33b by default, or llama-3-8b, llama-3-70b, qwen2.5-32b; 0 layers: all. Flags stand for
// --device cuda:0, one attention worker within the process, on cores of its own, and 0.97 of the
// card; KV in host memory takes --kv-cache-memory-bytes, or most of the free memory up to 64 GiB.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "app/memory.h"
#include "app/placement.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "plan/pipeline_model.h"
#include "random_model.h"
#include "rates.h"
#include "serve_options.h"
#include "step_loop.h"
#include "worker/device_rates.h"

namespace lamina::bench {
namespace {

constexpr std::array<int32_t, 5> kContexts = {1024, 2048, 4096, 8192, 16384};
constexpr int32_t kMostSequences = 512;
constexpr double kMostAttentionSeconds = 1.0;  // of a step, by its bound: more are left out
constexpr uint64_t kMostHostBytes = uint64_t{64} << 30;

struct Rates {
  DeviceRates model;  // of the model worker's device
  double host_reads = 0.0;
  LinkRates link;  // none, and no time, where the model worker is on the host
};

Rates measure_rates(StreamView stream, const app::CpuShare& cpus) {
  Rates rates;
  ThreadPool pool(cpus.num_threads, cpus.cpus);
  rates.host_reads = measure_host_reads(pool);
  if (stream.device().kind == DeviceKind::kCuda) {
    rates.model = measure_card(stream);
    rates.link = measure_link(stream);
  } else {
    rates.model = measure_product_rates(StreamView(pool), DType::kBF16, std::nullopt);
  }
  fmt::print(
      "model worker reads {:.0f} GB/s, multiplies {:.1f} TFLOP/s; {} host threads read "
      "{:.1f} GB/s; link {:.1f} GB/s to the host, {:.1f} from it\n",
      rates.model.read_bytes_per_s / 1e9,
      rates.model.flop_per_s / 1e12,
      cpus.num_threads,
      rates.host_reads / 1e9,
      rates.link.to_host / 1e9,
      rates.link.to_card / 1e9);
  return rates;
}

// q, k and v there, outputs back, of a sequence's token in all layers.
double link_seconds_a_token(const ModelProgram& program, const LinkRates& link) {
  if (link.to_host == 0) return 0;
  const AttentionAttrs& attention = program.attention();
  const double rows = static_cast<double>(dtype_bytes(program.dtype)) * program.num_layers();
  const double sent = attention.num_heads * attention.head_dim +
                      attention.num_kv_heads * (attention.head_dim + attention.value_dim);
  const double returned = attention.num_heads * attention.value_dim;
  return rows * (sent / link.to_host + returned / link.to_card);
}

// Of a step of `batch` sequences in all micro-batches together.
double bound_seconds(const ModelProgram& program,
                     const Rates& rates,
                     bool is_colocated,
                     int32_t batch,
                     int32_t context) {
  const DecodeWork work = program.decode_work();
  const double part = static_cast<double>(batch) / program.rotation.num_micro_batches;
  const double positions = part * context;
  const double model = model_bound_s(work, rates.model, part);
  if (is_colocated) {
    return model + attention_bound_s(work, rates.model.read_bytes_per_s, positions);
  }
  const double attention = attention_bound_s(work, rates.host_reads, positions);
  // Nothing of attention is hidden behind the slice that it is sent from.
  return layer_period_s(program.rotation,
                        {.model_s = model,
                         .lead_s = model,
                         .attention_s = attention,
                         .rest_s = attention,
                         .wire_s = part * link_seconds_a_token(program, rates.link)});
}

// Of this process; 0 where the kernel does not say. Without huge pages CPUs read a KV cache slower.
uint64_t huge_page_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string line;
  while (std::getline(file, line)) {
    constexpr std::string_view kKey = "AnonHugePages:";
    if (line.starts_with(kKey)) return std::strtoull(line.c_str() + kKey.size(), nullptr, 10) << 10;
  }
  return 0;
}

// Every step replays the ones before: some to warm up, then for about two seconds.
double step_seconds(StepLoop& loop) {
  constexpr double kEnoughSeconds = 2.0;
  loop.run_steps(2);
  const double rough = loop.run_steps(1);
  return loop.run_steps(std::clamp(static_cast<int32_t>(kEnoughSeconds / rough), 3, 15));
}

class Bench {
 public:
  Bench(const app::ServeOptions& options, int64_t layers)
      : placement_(options.placement), cpus_(app::settle(options.placement.cpus)) {
    const Device device = parse_device(options.model.device).value_or_throw();
    if (device.kind == DeviceKind::kCuda) {
      model_.gpus.push_back(std::make_unique<GpuStream>(device));
    }
    ThreadPool pool(1);
    const StreamView stream = model_.gpus.empty() ? StreamView(pool) : model_.gpus[0]->view();
    use_device_of(stream);
    rates_ = measure_rates(stream, cpus_.share);
    load(options.model, layers, stream);
  }

  void run_colocated() {
    app::PlacementOptions options = placement_;
    options.mode = "colocated";
    const bool is_on_host = model_.gpus.empty();
    options.kv_cache_memory_bytes = is_on_host ? host_bytes() : 0;
    try {
      measure("colocated", options, /*num_micro_batches=*/1, /*must_touch=*/is_on_host);
    } catch (const Error& error) {
      if (error.code() != StatusCode::kResourceExhausted) throw;
      fmt::print("colocated: {}\n", error.what());  // a card without room for any sequence
    }
  }

  void run_pool(int32_t num_micro_batches) {
    app::PlacementOptions options = placement_;
    options.kv_cache_memory_bytes = host_bytes() / static_cast<uint64_t>(options.attention_workers);
    measure(fmt::format("CPU pool, n {}", num_micro_batches), options, num_micro_batches, true);
  }

 private:
  void load(const app::ModelOptions& options, int64_t layers, StreamView stream) {
    ModelProgram& program = model_.program;
    program.block_size = options.block_size;
    program.max_model_len = kContexts.back();
    program.max_num_seqs = kMostSequences;
    program.max_num_batched_tokens = kMostSequences;
    program.max_logits_rows = kMostSequences;
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced = llama_model(options.model, layers);
    const MemoryFromNodes memory(app::memory_nodes(cpus_));
    shard.weights = std::make_unique<RandomWeights>(shard.sliced.graph, stream);
    fmt::print("{}, {} layers, {:.1f} GB, {:.3f} MB of KV a token\n",
               options.model,
               program.num_layers(),
               static_cast<double>(shard.weights->resident_bytes()) / 1e9,
               program.decode_work().kv_bytes_per_position / 1e6);
    std::fflush(stdout);
  }

  // For all attention workers together.
  [[nodiscard]] uint64_t host_bytes() const {
    if (placement_.kv_cache_memory_bytes != 0) return placement_.kv_cache_memory_bytes;
    return std::min(app::available_memory_bytes() / 10 * 6, kMostHostBytes);
  }

  void measure(const std::string& name,
               const app::PlacementOptions& options,
               int32_t num_micro_batches,
               bool must_touch) {
    model_.program.rotation = {.num_micro_batches = num_micro_batches, .num_replicas = 1};
    const MemoryFromNodes memory(app::memory_nodes(cpus_));
    app::Placement placement;
    const auto backend = app::place_backend(options, cpus_, model_, "warning", placement);
    StepLoop loop(*backend, model_.program, kContexts.front());
    const TimePoint begin = steady_clock().now();
    if (must_touch) loop.touch_blocks();
    const double seconds = std::chrono::duration<double>(steady_clock().now() - begin).count();
    fmt::print("{}: {} sequences of {} fit, written to in {:.1f} s, {:.1f} GB in huge pages\n",
               name,
               loop.most_sequences(kContexts.front()),
               kContexts.front(),
               seconds,
               static_cast<double>(huge_page_bytes()) / 1e9);
    std::fflush(stdout);
    const bool is_colocated = options.mode == "colocated";
    for (const int32_t context : kContexts)
      measure_point(name, is_colocated, context, *backend, loop);
  }

  void measure_point(const std::string& name,
                     bool is_colocated,
                     int32_t context,
                     const StepBackend& backend,
                     StepLoop& loop) {
    const int32_t batch = choose_batch(loop, is_colocated, context);
    fmt::print("{:14} S {:5}  B {:3}", name, context, batch);
    if (batch < model_.program.rotation.num_micro_batches) {
      fmt::print("   does not fit\n");
      return;
    }
    loop.set_sequences(batch, context);
    loop.run_steps(1);  // the sequences begin
    const BackendTimes before = backend.times();
    const TimePoint begin = steady_clock().now();
    const double seconds = step_seconds(loop);
    const double all = std::chrono::duration<double>(steady_clock().now() - begin).count();
    const BackendTimes after = backend.times();
    const double bound = bound_seconds(model_.program, rates_, is_colocated, batch, context);
    const double waiting = after.attention_wait_seconds - before.attention_wait_seconds;
    fmt::print("  {:8.2f} ms  bound {:8.2f} ms  {:.2f}x  {:7.1f} tokens/s  waits {:3.0f} %",
               1e3 * seconds,
               1e3 * bound,
               seconds / bound,
               batch / seconds,
               100.0 * waiting / all);
    if (is_colocated) {
      colocated_[context] = batch / seconds;
    } else if (colocated_.contains(context)) {
      fmt::print("  {:.2f} of colocated", batch / seconds / colocated_[context]);
    }
    fmt::print("\n");
    std::fflush(stdout);
  }

  // Over CPUs an even number, so that one micro-batch and two have the same.
  [[nodiscard]] int32_t choose_batch(const StepLoop& loop,
                                     bool is_colocated,
                                     int32_t context) const {
    const int32_t most = loop.most_sequences(context);
    if (is_colocated) return most;
    const double kv_bytes = model_.program.decode_work().kv_bytes_per_position * context;
    const double in_time = kMostAttentionSeconds * rates_.host_reads / kv_bytes;
    const int32_t batch = in_time < most ? std::max(1, static_cast<int32_t>(in_time)) : most;
    return batch == 1 ? batch : batch / 2 * 2;
  }

  app::PlacementOptions placement_;
  app::ProcessCpus cpus_;
  app::LoadedModel model_;  // neither files nor tokenizer
  Rates rates_;
  std::map<int32_t, double> colocated_;  // tokens a second, by context
};

int run(const app::ServeOptions& options, int64_t layers) {
  const Device device = parse_device(options.model.device).value_or_throw();
  if (device.kind == DeviceKind::kCuda && cuda::num_devices() <= device.idx) {
    fmt::print("skipped: no GPU\n");
    return 0;
  }
  Bench bench(options, layers);
  bench.run_colocated();
  for (const int32_t num_micro_batches : {1, 2}) bench.run_pool(num_micro_batches);
  return 0;
}

}  // namespace
}  // namespace lamina::bench

int main(int argc, char** argv) {
  return lamina::bench::run_with_serve_options(argc,
                                               argv,
                                               "llama-33b",
                                               {"--device",
                                                "cuda:0",
                                                "--transport",
                                                "loopback",
                                                "--attention-workers",
                                                "1",
                                                "--cpu-bind",
                                                "auto",
                                                "--gpu-memory-utilization",
                                                "0.97"},
                                               lamina::bench::run);
}
