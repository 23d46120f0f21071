#include "app/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include <CLI/CLI.hpp>

#include "app/bench_transport.h"
#include "app/flags.h"
#include "app/plan.h"
#include "app/profile.h"
#include "app/version.h"
#include "base/error.h"

namespace lamina::app {
namespace {

int32_t parse_micro_batches(const std::string& text) {
  constexpr uint64_t kMost = 10;
  const uint64_t count = parse_size(text);
  if (count >= 1 && count <= kMost) return static_cast<int32_t>(count);
  throw CLI::ValidationError("--micro-batches",
                             fmt::format("{} is not in 1 to {}, nor auto", text, kMost));
}

void add_disable_rewrite(Flags& flags, std::vector<std::string>& names) {
  flags.add_list("--disable-rewrite",
                 names,
                 fmt::format("Rewrite of the model's graph to leave out; may be repeated: {}",
                             fmt::join(rewrite_names(), ", ")));
}

void add_gpu_memory(Flags& flags, double& share) {
  flags
      .add("--gpu-memory-utilization",
           share,
           "Share of a GPU's memory that weights, activations and KV may take together")
      ->check(CLI::Range(0.05, 1.0));
}

void add_model(CLI::App& app, ModelOptions& options) {
  Flags flags(app);
  flags.add("model", options.model, "Hugging Face folder or GGUF file");
  flags.add_device(
      "--device",
      options.device,
      "Where the model worker computes: cpu, cuda or cuda:N; ranks on the GPUs from there on, "
      "replica by replica");
  flags.add("--dtype", options.dtype, "Weights and activations: bfloat16, float16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}));
  flags
      .add("--kv-cache-dtype",
           options.kv_cache_dtype,
           "KV cache: auto (as --dtype), bfloat16, float16, float32, int8 or fp8 (which is "
           "fp8_e4m3): 8 bits, with a scale for each token and head")
      ->check(CLI::IsMember({"auto", "bfloat16", "float16", "float32", "int8", "fp8", "fp8_e4m3"}));
  flags
      .add("--quantization",
           options.quantization,
           "Quantised weights of a GGUF file: auto (products in int8 where the processor has them, "
           "and --dtype is not float32), gguf (always) or none (decoded to --dtype)")
      ->check(CLI::IsMember({"auto", "gguf", "none"}));
  flags.add("--block-size", options.block_size, "Tokens of a KV block")->check(CLI::Range(1, 1024));
  flags.add_parsed(
      "--max-model-len",
      [&options](const std::string& text) {
        options.max_model_len =
            text == "auto" || text == "-1" ? -1 : static_cast<int64_t>(parse_size(text));
      },
      "Longest sequence, prompt and output (default: the model's own limit); 4k and 4K are 4000 "
      "and 4096");
  flags.add("--max-num-seqs", options.max_num_seqs, "Sequences that run at once")
      ->check(CLI::Range(1, 4096));
  flags
      .add("--tensor-parallel-size",
           options.tensor_parallel_size,
           "Ranks that share the model's weights, each on its own threads or GPU (at most 16)")
      ->check(CLI::Range(1, 64));
  flags
      .add("--replicas",
           options.replicas,
           "Replicas of the model that take turns (rotational staggered pipelining); on GPUs over "
           "--transport cuda_p2p")
      ->check(CLI::Range(1, 8));
  flags.add_parsed(
      "--micro-batches",
      [&options](const std::string& text) {
        options.micro_batches = text == "auto" ? 0 : parse_micro_batches(text);
      },
      "Micro-batches in flight, up to --replicas + 2: while attention of one is under way, slices "
      "of "
      "others run (default: auto, as measured; with replicas on GPUs one more than those)");
  flags
      .add("--max-num-batched-tokens",
           options.max_num_batched_tokens,
           "Tokens of a step; longer prompts are chunked")
      ->check(CLI::Range(1, 65536));
  flags.add_switch("--skip-tokenizer-init", options.skip_tokenizer_init, "Serve token ids only");
  add_disable_rewrite(flags, options.disable_rewrite);
}

void add_security(CLI::App& app, SecurityOptions& options) {
  Flags flags(app);
  flags.add("--cluster-secret",
            options.cluster_secret,
            "Shared secret between engine and attention workers");
  flags.add(
      "--tls-certificate", options.tls_certificate, "PEM certificate of this end (mutual TLS)");
  flags.add("--tls-key", options.tls_key, "PEM private key of this end");
  flags.add("--tls-ca", options.tls_ca, "PEM certificate of the CA that signs the other end");
}

void add_cpus(Flags& flags, CpuOptions& options) {
  flags.add("--threads", options.threads, "Threads that compute; 0: one for every core")
      ->check(CLI::Range(0, 1024));
  flags.add("--cpu-bind",
            options.cpu_bind,
            "Hardware threads that they stay on, as 0-3,8; auto: one each, if they are enough for "
            "every core, on a machine that serves nothing else; none: the kernel moves them");
  flags
      .add("--numa-node",
           options.numa_node,
           "NUMA node to live on with threads and memory; -1: all of them, local attention workers "
           "in turn")
      ->check(CLI::Range(-1, 1023));
}

void add_placement(CLI::App& app, PlacementOptions& options) {
  Flags flags(app);
  flags
      .add("--mode",
           options.mode,
           "disaggregated, or colocated: attention on the model worker itself")
      ->check(CLI::IsMember({"disaggregated", "colocated"}));
  flags.add("--attention-workers", options.attention_workers, "Local attention workers to start")
      ->check(CLI::Range(1, 64));
  flags.add_list("--attention-device",
                 options.attention_device,
                 "Device of the local attention workers, cpu or cuda:N; may be repeated: they take "
                 "them in turn");
  flags.add_list("--attention-worker",
                 options.attention_worker,
                 "host:port of a running attention worker; may be repeated");
  flags
      .add("--transport",
           options.transport,
           "Data plane: auto, shm, tcp; loopback: local attention workers are threads of this "
           "process, and compute on those of the model worker; cuda_p2p: devices of one host send "
           "each other q, k, v and outputs without it, over NVLink, PCIe or pinned memory; nccl: "
           "so do GPUs of different hosts, over what network NCCL finds; rdma: the same by NICs "
           "that the GPUs drive themselves")
      ->check(CLI::IsMember({"auto", "shm", "tcp", "loopback", "cuda_p2p", "nccl", "rdma"}));
  flags
      .add("--partition",
           options.partition,
           "How the KV cache is shared out over the attention workers: auto, head, request, "
           "sequence or head-sequence")
      ->check(CLI::IsMember({"auto", "head", "request", "sequence", "head-sequence"}));
  flags.add_switch("--overlap",
                   options.overlap,
                   "Attention starts on the cached tokens before k and v are there, also on GPUs, "
                   "where the last bits of results may differ then (on CPUs it does so anyway)");
  flags.add_switch("--no-overlap",
                   options.no_overlap,
                   "Attention waits for k and v before it starts on the cached tokens");
  flags.add(
      "--trace", options.trace, "File for a timeline of slices and attention, for ui.perfetto.dev");
  add_gpu_memory(flags, options.gpu_memory_utilization);
  flags.add_bytes("--kv-cache-memory-bytes",
                  options.kv_cache_memory_bytes,
                  "KV memory of each local attention worker, as 2GiB (default: half of the free "
                  "memory, shared)");
  add_cpus(flags, options.cpus);
  add_security(app, options.security);
}

void add_serve(CLI::App& app, ServeOptions& options) {
  add_model(app, options.model);
  add_placement(app, options.placement);
  Flags flags(app);
  flags.add("--host", options.host, "Address to listen on");
  flags.add("--port", options.port, "Port to listen on; 0: any");
  flags.add_list("--api-key", options.api_keys, "Key that requests must carry; may be repeated");
  flags.add_switch("--insecure", options.insecure, "Listen beyond this machine without an API key");
  flags.add("--served-model-name",
            options.served_model_name,
            "Name of the model in the API (default: the file's)");
  flags.add("--chat-template", options.chat_template, "Chat template: a file, or the text itself");
  flags
      .add("--max-queued-requests",
           options.max_queued_requests,
           "Sequences that may wait beyond --max-num-seqs")
      ->check(CLI::Range(0, 1000000));
  flags
      .add("--shutdown-timeout",
           options.shutdown_timeout,
           "Seconds that running requests get at the end")
      ->check(CLI::Range(0.0, 3600.0));
  flags.add_list("--allowed-origins", options.allowed_origins, "Origins for CORS (default: none)");
  flags.add("--seed", options.seed, "Seed of requests that bring none; 0: a random one");
}

void add_attention_worker(CLI::App& app, AttentionWorkerOptions& options) {
  Flags flags(app);
  flags.add("--listen", options.listen, "host:port of the control plane; port 0: any");
  add_gpu_memory(flags, options.gpu_memory_utilization);
  flags.add_device("--device", options.device, "Where attention runs: cpu, cuda or cuda:N");
  flags.add_bytes("--kv-cache-memory-bytes",
                  options.kv_cache_memory_bytes,
                  "Memory for KV, as 2GiB (default: half of the free memory)");
  add_cpus(flags, options.cpus);
  add_security(app, options.security);
  // For a parent process that started this one.
  flags.add("--announce-fd", options.announce_fd, "Descriptor to write the port to")->group("");
  flags.add("--parent-pid", options.parent_pid, "End when this parent does")->group("");
}

void add_run(CLI::App& app, RunOptions& options) {
  options.placement.mode = "colocated";
  add_model(app, options.model);
  add_placement(app, options.placement);
  Flags flags(app);
  flags.add("-p,--prompt", options.prompt, "Answer this and exit (default: an interactive chat)");
  flags.add("--system", options.system_prompt, "System message");
  flags.add("--chat-template", options.chat_template, "Chat template: a file, or the text itself");
  flags.add("--max-tokens", options.max_tokens, "Longest answer in tokens")
      ->check(CLI::Range(1, 1 << 30));
  flags.add("--temperature",
            options.temperature,
            "0: the most probable token (default: the model's own)");
  flags.add("--seed", options.seed, "Seed of the draws");
}

// What the cost model of fused projections reckons with.
void add_rates(Flags& flags, RewriteOptions& options) {
  ProjectionRates& rates = options.rates;
  flags.add("--model-flops", rates.flop_per_s, "Model worker: FLOP a second");
  flags.add("--model-bandwidth", rates.bytes_per_s, "Model worker: bytes of memory a second");
  flags.add("--launch-time", rates.launch_s, "Model worker: seconds to launch a kernel");
  flags.add("--wire-latency", rates.wire_latency_s, "Wire: seconds one way");
  flags.add("--wire-bandwidth", rates.wire_bytes_per_s, "Wire: bytes a second, one way");
  flags.add("--attention-bandwidth",
            rates.attention_bytes_per_s,
            "Attention workers: bytes of KV a second, all together");
  flags.add("--batch", options.workload.batch, "Sequences of the step that is reckoned with")
      ->check(CLI::Range(1, 1 << 20));
  flags.add("--context", options.workload.context_len, "Tokens that each of them attends to")
      ->check(CLI::Range(0, 1 << 30));
}

void add_convert(CLI::App& app, ConvertOptions& options) {
  Flags flags(app);
  flags.add(
      "model", options.model, "Hugging Face folder, GGUF file or config.json; no weights needed");
  flags.add("--dtype", options.dtype, "bfloat16, float16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}));
  flags
      .add("--max-num-batched-tokens",
           options.max_num_batched_tokens,
           "Tokens of the step that activation memory is planned for")
      ->check(CLI::Range(1, 65536));
  flags
      .add("--tensor-parallel-size",
           options.tensor_parallel_size,
           "Ranks that share the weights: the first one's slices are shown")
      ->check(CLI::Range(1, 64));
  CLI::Option* json = flags.add_switch("--json", options.json, "The report as JSON");
  CLI::Option* dot = flags.add_switch("--dot", options.dot, "The slices for Graphviz");
  CLI::Option* svg = flags.add_switch("--svg", options.svg, "The slices as a drawing");
  json->excludes(dot)->excludes(svg);
  dot->excludes(svg);
  flags.add("--output", options.output, "File to write (default: standard output)");
  add_disable_rewrite(flags, options.rewrites.disabled);
  add_rates(flags, options.rewrites);
}

bool is_secret(const std::string& name) {
  return name == "--api-key" || name == "--cluster-secret";
}

std::vector<std::string> yaml_values(const YAML::Node& node, const std::string& key) {
  if (node.IsScalar()) return {node.as<std::string>()};
  if (!node.IsSequence()) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--config: '{}' must be a value or a list", key));
  }
  std::vector<std::string> values;
  for (const YAML::Node& item : node) values.push_back(item.as<std::string>());
  return values;
}

// Keys of the file are long flag names without the dashes; what flags or environment gave stands.
void apply_config_file(const std::string& path, CLI::App& app) {
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (!root.IsMap()) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("--config: '{}' is not a mapping", path));
    }
    for (const auto& entry : root) {
      const auto key = entry.first.as<std::string>();
      CLI::Option* option = app.get_option_no_throw(key == "model" ? key : "--" + key);
      if (option == nullptr || key == "config") {
        throw Error(StatusCode::kInvalidArgument,
                    fmt::format("--config: '{}' has the unknown key '{}'", path, key));
      }
      if (option->count() > 0) continue;
      for (const std::string& value : yaml_values(entry.second, key)) option->add_result(value);
      option->run_callback();
    }
  } catch (const YAML::Exception& error) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--config: '{}': {}", path, error.what()));
  }
}

std::string describe(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_name() == "--help") continue;
    const std::string value = is_secret(option->get_name())
                                  ? "(set)"
                                  : fmt::format("{}", fmt::join(option->results(), " "));
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", option->get_name(), value);
  }
  return text;
}

// Not CLI11's required(): the configuration file may name the model too.
void require_model(const CLI::App& app) {
  const CLI::Option* model = app.get_option_no_throw("model");
  if (model == nullptr || model->count() > 0) return;
  throw Error(
      StatusCode::kInvalidArgument,
      fmt::format("lamina {} needs a model: a Hugging Face folder or a GGUF file", app.get_name()));
}

}  // namespace

uint64_t parse_size(const std::string& text) {
  static const std::map<std::string, double> kUnits = {{"", 1},
                                                       {"k", 1e3},
                                                       {"m", 1e6},
                                                       {"g", 1e9},
                                                       {"t", 1e12},
                                                       {"K", 0x1p10},
                                                       {"M", 0x1p20},
                                                       {"G", 0x1p30},
                                                       {"T", 0x1p40},
                                                       {"KiB", 0x1p10},
                                                       {"MiB", 0x1p20},
                                                       {"GiB", 0x1p30},
                                                       {"TiB", 0x1p40},
                                                       {"KB", 1e3},
                                                       {"MB", 1e6},
                                                       {"GB", 1e9},
                                                       {"B", 1}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto unit = kUnits.find(std::string(end, text.data() + text.size()));
  const double value = unit == kUnits.end() ? -1 : std::round(number * unit->second);
  if (error != std::errc() || !(value >= 0) || value >= 0x1p63) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("'{}' is not a size: write 1000, 4k, 512MiB or 2G", text));
  }
  return static_cast<uint64_t>(value);
}

std::optional<Options> parse_command_line(int argc, char** argv, int& exit_code) {
  Options options;
  std::string config_file;
  CLI::App root("Lamina: an LLM inference server that offloads attention", "lamina");
  root.set_version_flag("--version", std::string(kVersion));
  root.require_subcommand(1);
  const std::map<Command, CLI::App*> commands = {
      {Command::kServe,
       root.add_subcommand("serve", "Serve a model over HTTP with an OpenAI-compatible API")},
      {Command::kAttentionWorker,
       root.add_subcommand("attention-worker", "Hold KV blocks and run attention for a server")},
      {Command::kRun, root.add_subcommand("run", "Chat with a model in the terminal")},
      {Command::kConvert,
       root.add_subcommand("convert", "Print how a model is sliced at its attention operators")},
      {Command::kCollectEnv,
       root.add_subcommand("collect-env", "Print versions and devices for a bug report")},
      {Command::kBenchTransport, add_bench_transport(root, options.bench_transport)},
      {Command::kPlan, add_plan(root, options.plan)},
      {Command::kProfile, add_profile(root, options.profile)}};
  add_serve(*commands.at(Command::kServe), options.serve);
  add_attention_worker(*commands.at(Command::kAttentionWorker), options.attention_worker);
  add_run(*commands.at(Command::kRun), options.run);
  add_convert(*commands.at(Command::kConvert), options.convert);
  for (const auto& [command, app] : commands) {
    app->add_option("--config", config_file, "YAML file of long flag names and values")
        ->envname("LAMINA_CONFIG");
    app->add_option("--log-level", options.log_level, "debug, info, warning or error")
        ->envname("LAMINA_LOG_LEVEL")
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = root.exit(error);
    return std::nullopt;
  }
  for (const auto& [command, app] : commands) {
    if (!app->parsed()) continue;
    options.command = command;
    if (!config_file.empty()) apply_config_file(config_file, *app);
    require_model(*app);
    options.effective = describe(*app);
    const bool shares_terminal = command == Command::kRun || command == Command::kBenchTransport ||
                                 command == Command::kPlan || command == Command::kProfile;
    if (options.log_level.empty()) options.log_level = shares_terminal ? "warning" : "info";
  }
  return options;
}

}  // namespace lamina::app
