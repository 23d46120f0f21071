#include "app/loading.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "convert/converter.h"
#include "convert/tensor_parallel.h"
#include "exec/device_weights.h"
#include "kernels/linear.h"
#include "model/builder.h"
#include "model/rope_scaling.h"

namespace lamina::app {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// A bar on a terminal, nothing elsewhere.
LoadProgress progress_bar() {
  if (::isatty(STDERR_FILENO) == 0) return [](uint64_t, uint64_t) {};
  return [last = -1](uint64_t done, uint64_t total) mutable {
    const int percent = total == 0 ? 100 : static_cast<int>(done * 100 / total);
    if (percent == last) return;
    last = percent;
    const std::string bar(static_cast<size_t>(percent) * 40 / 100, '#');
    std::fputs(fmt::format("\rloading [{:<40}] {:3} %{}", bar, percent, percent == 100 ? "\n" : "")
                   .c_str(),
               stderr);
  };
}

int32_t resolve_max_model_len(const ModelOptions& options, const ModelConfig& config) {
  const int32_t limit = max_exact_positions(config);
  if (options.max_model_len < 0) return limit;
  if (options.max_model_len == 0 || options.max_model_len > limit) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--max-model-len {} is outside [1, {}], what this model was made for",
                            options.max_model_len,
                            limit));
  }
  return static_cast<int32_t>(options.max_model_len);
}

std::optional<ChatTemplate> load_template(const std::string& given, const ModelFiles& files) {
  std::optional<std::string> source = files.chat_template();
  if (!given.empty()) {
    const bool is_text =
        given.find("{{") != std::string::npos || given.find("{%") != std::string::npos;
    source = is_text ? given : read_text_file(given, kMaxTemplateBytes);
  }
  if (!source) return std::nullopt;
  try {
    return ChatTemplate(*source);
  } catch (const Error& error) {
    if (!given.empty()) throw;
    log_warning("the model's chat template cannot be used, chat requests will be refused: {}",
                error.what());
    return std::nullopt;
  }
}

std::string token_text(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? std::string(tokenizer.token_bytes(*id)) : std::string();
}

// A stream for each rank of each replica, on the GPU that --device names and those after it; none
// on the CPU.
std::vector<std::unique_ptr<GpuStream>> open_devices(const ModelOptions& options) {
  const Device first = parse_device(options.device).value_or_throw();
  std::vector<std::unique_ptr<GpuStream>> streams;
  if (first.kind == DeviceKind::kCpu) return streams;
  for (int32_t i = 0; i < options.replicas * options.tensor_parallel_size; ++i) {
    streams.push_back(std::make_unique<GpuStream>(Device{first.kind, first.idx + i}));
  }
  streams.front()->view().adopt_this_thread();
  return streams;
}

bool keeps_quantized(const ModelOptions& options, DType dtype) {
  if (options.quantization != "auto") return options.quantization == "gguf";
  return kernels::has_fast_products(PackedFormat::kInt8) && dtype != DType::kF32;
}

// On a GPU q leaves by way of the host, which waits for the device first: longer than the start
// that a product of its own would give q over k and v.
constexpr double kStagedLaunchSeconds = 30e-6;

// Rank `rank`'s share of the weights, to its GPU of each replica.
void copy_to_gpus(int32_t rank,
                  int32_t num_ranks,
                  std::span<const std::unique_ptr<GpuStream>> gpus,
                  ModelShard& shard) {
  const std::unique_ptr<WeightStore> host = std::move(shard.weights);
  for (auto i = static_cast<size_t>(rank); i < gpus.size(); i += static_cast<size_t>(num_ranks)) {
    auto copy = std::make_unique<DeviceWeights>(shard.sliced.graph, *host, gpus[i]->view());
    if (shard.weights == nullptr) {
      shard.weights = std::move(copy);
    } else {
      shard.copies.push_back(std::move(copy));
    }
  }
}

// Slices the model and loads each tensor-parallel rank's share of the weights.
void load_ranks(const ModelOptions& options,
                const ModelFiles& files,
                const ProcessCpus& cpus,
                std::span<const std::unique_ptr<GpuStream>> gpus,
                ModelProgram& program) {
  const bool is_on_host = gpus.empty();
  const Graph graph = build_graph(files.config(), program.dtype);
  RewriteOptions rewrites{.disabled = options.disable_rewrite, .rates = {}, .workload = {}};
  if (!is_on_host) rewrites.rates.launch_s = kStagedLaunchSeconds;
  for (int32_t rank = 0; rank < options.tensor_parallel_size; ++rank) {
    const MemoryFromNodes memory(
        nodes_of_rank(cpus, rank, options.tensor_parallel_size, options.replicas));
    ModelShard& shard = program.ranks.emplace_back();
    shard.sliced =
        convert_model(shard_graph(graph, rank, options.tensor_parallel_size), rewrites).sliced;
    shard.weights = files.load_weights(
        shard.sliced.graph,
        {.progress = progress_bar(),
         .keeps_quantized = is_on_host && keeps_quantized(options, program.dtype),
         .packs_pairs = is_on_host && kernels::has_fast_products(PackedFormat::kPairs)});
    if (!is_on_host) copy_to_gpus(rank, options.tensor_parallel_size, gpus, shard);
  }
}

uint64_t weight_bytes(const ModelProgram& program) {
  uint64_t bytes = 0;
  for (const ModelShard& shard : program.ranks) bytes += shard.weights->resident_bytes();
  return bytes;
}

bool is_quantized(const ModelProgram& program) {
  const std::optional<PackedFormat> format = program.packed_format();
  return format && is_quantized(*format);
}

// The command line has seen to it that it is one of these names.
DType kv_dtype_of(const ModelOptions& options) {
  const std::string& name = options.kv_cache_dtype;
  if (name == "int8") return DType::kI8;
  if (name == "fp8" || name == "fp8_e4m3") return DType::kF8E4M3;
  return parse_dtype(name == "auto" ? options.dtype : name).value_or_throw();
}

// More micro-batches than that only wait for each other.
Rotation rotation_of(const ModelOptions& options) {
  if (options.micro_batches > options.replicas + 2) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--micro-batches {}: at most --replicas + 2, which is {}",
                            options.micro_batches,
                            options.replicas + 2));
  }
  // Those that auto may choose from: one replica hides a long round trip behind a third.
  const int32_t most = options.replicas == 1 ? 3 : options.replicas + 1;
  const int32_t count = options.micro_batches == 0 ? most : options.micro_batches;
  return {.num_micro_batches = count, .num_replicas = options.replicas};
}

}  // namespace

LoadedModel load_model(const ModelOptions& options,
                       const std::string& chat_template,
                       const ProcessCpus& cpus) {
  LoadedModel loaded;
  loaded.files = open_model(options.model);
  const ModelConfig& config = loaded.files->config();
  ModelProgram& program = loaded.program;
  program.dtype = parse_dtype(options.dtype).value_or_throw();
  program.kv_dtype = kv_dtype_of(options);
  program.block_size = options.block_size;
  program.rotation = rotation_of(options);
  program.max_model_len = resolve_max_model_len(options, config);
  program.max_num_seqs = options.max_num_seqs;
  program.max_num_batched_tokens = std::max(options.max_num_batched_tokens, options.max_num_seqs);
  // Half of the rows may sample, the other half score prompts (echo with logprobs).
  program.max_logits_rows = std::max(2 * options.max_num_seqs, 64);
  loaded.gpus = open_devices(options);
  // Replicas on GPUs run whole steps, of which nothing is measured to choose by.
  const bool runs_whole_steps = !loaded.gpus.empty() && options.replicas > 1;
  loaded.has_auto_micro_batches = options.micro_batches == 0 && !runs_whole_steps;
  load_ranks(options, *loaded.files, cpus, loaded.gpus, program);
  if (!options.skip_tokenizer_init) {
    loaded.tokenizer = loaded.files->load_tokenizer();
    loaded.bos_token = token_text(*loaded.tokenizer, loaded.tokenizer->bos_id());
    loaded.eos_token = token_text(*loaded.tokenizer, loaded.tokenizer->eos_id());
    loaded.chat_template = load_template(chat_template, *loaded.files);
  }
  log_info(
      "{}: {} layers, {} heads, {} KV heads of {}, {} ranks, {} weights ({} MiB{}), sequences up "
      "to "
      "{} tokens",
      config.model_type,
      program.num_layers(),
      program.num_ranks() * program.attention().num_heads,
      program.num_kv_heads(),
      program.attention().head_dim,
      program.num_ranks(),
      options.dtype,
      weight_bytes(program) >> 20,
      is_quantized(program) ? ", quantised" : "",
      program.max_model_len);
  return loaded;
}

}  // namespace lamina::app
