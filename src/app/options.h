// Options of the programs, as flags, environment and a YAML file give them, with their defaults.
// Plain structs; filled in by command_line.cc, printed and passed down by each program.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "convert/rewriter.h"

namespace lamina::app {

struct ModelOptions {
  std::string model;           // Hugging Face folder or GGUF file
  std::string device = "cpu";  // of the model worker: "cpu", "cuda" or "cuda:N"
  std::string dtype = "bfloat16";
  std::string kv_cache_dtype = "auto";
  std::string quantization = "auto";
  int32_t block_size = 64;
  int64_t max_model_len = -1;  // -1: the model's own limit
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 512;
  bool skip_tokenizer_init = false;
  int32_t tensor_parallel_size = 1;
  int32_t replicas = 1;
  int32_t micro_batches = 0;                 // 0: auto
  std::vector<std::string> disable_rewrite;  // names, as `lamina convert` prints them
};

struct SecurityOptions {
  std::string cluster_secret;
  std::string tls_certificate;
  std::string tls_key;
  std::string tls_ca;
};

// Where a program's threads run and its memory lies.
struct CpuOptions {
  int32_t threads = 0;            // 0: one for every core this process may use
  std::string cpu_bind = "none";  // or "auto", or hardware threads as "0-3,8"
  int32_t numa_node = -1;         // -1: all
};

struct PlacementOptions {
  std::string mode = "disaggregated";
  int32_t attention_workers = 2;              // local ones to spawn where no remote one is named
  std::vector<std::string> attention_worker;  // host:port of remote ones
  std::vector<std::string> attention_device;  // of local ones, in turn; none: the CPU
  std::string transport = "auto";
  std::string partition = "auto";
  bool overlap = false;  // neither: where it gives the same bits
  bool no_overlap = false;
  std::string trace;                    // a file; empty: none
  uint64_t kv_cache_memory_bytes = 0;   // 0: half of the free memory, shared by the local workers
  double gpu_memory_utilization = 0.9;  // of a GPU's memory, weights included; where it holds KV
  CpuOptions cpus;
  SecurityOptions security;
};

struct ServeOptions {
  ModelOptions model;
  PlacementOptions placement;
  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  std::vector<std::string> api_keys;
  bool insecure = false;
  std::string served_model_name;
  std::string chat_template;  // a file, or the template itself
  int32_t max_queued_requests = 512;
  double shutdown_timeout = 10.0;  // seconds
  std::vector<std::string> allowed_origins;
  uint64_t seed = 0;
};

struct AttentionWorkerOptions {
  std::string listen = "127.0.0.1:0";
  std::string device = "cpu";          // or "cuda", "cuda:N"
  uint64_t kv_cache_memory_bytes = 0;  // 0: half of the free memory, or what follows of a GPU's
  double gpu_memory_utilization = 0.9;
  CpuOptions cpus;
  SecurityOptions security;
  int32_t announce_fd = -1;  // where to write the port; -1: nowhere
  int32_t parent_pid = 0;    // end when this parent does; 0: live on
};

struct RunOptions {
  ModelOptions model;
  PlacementOptions placement;
  std::string prompt;  // empty: interactive
  std::string system_prompt;
  std::string chat_template;
  int32_t max_tokens = 512;
  double temperature = -1.0;  // < 0: the model's default
  std::optional<uint64_t> seed;
};

struct ConvertOptions {
  std::string model;
  std::string dtype = "bfloat16";
  int32_t max_num_batched_tokens = 512;
  int32_t tensor_parallel_size = 1;
  bool json = false;
  bool dot = false;
  bool svg = false;
  std::string output;  // a file; empty: standard output
  RewriteOptions rewrites;
};

struct BenchTransportOptions {
  std::vector<std::string> backends;  // names; empty: all that this machine has
  std::vector<uint32_t> sizes = {8, 16 << 10, 128 << 10, 1 << 20, 4 << 20};  // bytes
  double seconds = 0.5;                                                      // of each line
  int32_t spin_us = 20;     // hosts: polling before a wait blocks
  bool shared_gpu = false;  // between GPUs also where both processes share the only one
  bool parts = false;       // how messages between GPUs are best cut, instead
  bool json = false;
};

struct PlanOptions {
  std::string model;
  std::string devices;              // a YAML file; empty: the catalogue that is built in
  std::vector<std::string> prices;  // DEVICE=DOLLARS
  std::string profile;              // a YAML file that `lamina profile` wrote; empty: none
  std::string model_device = "h100";
  std::string attention_device = "h20";
  std::string colocated_device;  // empty: the model's
  int32_t max_model_devices = 16;
  int32_t max_attention_devices = 16;
  std::string trace;
  std::string prompt_tokens = "1155";
  std::string generated_tokens = "211";
  double rate = -1.0;  // requests a second; 0: all at once; < 0: the trace's own
  int32_t num_requests = 2000;
  uint64_t seed = 0;
  double max_tbt_ms = 0;   // 0: no limit
  double max_ttft_ms = 0;  // 0: no limit
  double host_ms = 0;
  int32_t block_size = 0;  // 0: as assumed
  std::vector<std::string> kv_cache_dtypes;
  bool paper_assumptions = false;
  bool replay = false;
  bool prefill_shared = false;
  bool json = false;
  bool html = false;
  bool svg = false;
  std::string output;  // a file; empty: standard output
};

struct ProfileOptions {
  std::string model;
  std::string device = "cpu";     // "cpu", "cuda" or "cuda:N"
  std::string attention_device;   // another GPU; empty: the same device
  std::string device_name;        // empty: "cpu" or "cuda"
  std::string transport = "shm";  // of CPUs
  int32_t max_batch = 64;
  int32_t max_context = 4096;
  CpuOptions cpus;
  bool slices = false;  // measure them whole
  double point_ms = 20;
  std::string output;
};

// Which program was asked for, with its options; the others keep their defaults.
enum class Command : uint8_t {
  kServe,
  kAttentionWorker,
  kRun,
  kConvert,
  kCollectEnv,
  kBenchTransport,
  kPlan,
  kProfile
};

struct Options {
  Command command = Command::kServe;
  std::string log_level;  // "warning" for run, whose text shares the terminal; else "info"
  ServeOptions serve;
  AttentionWorkerOptions attention_worker;
  RunOptions run;
  ConvertOptions convert;
  BenchTransportOptions bench_transport;
  PlanOptions plan;
  ProfileOptions profile;
  std::string effective;  // the resolved set, one "--flag value" a line, secrets left out
};

}  // namespace lamina::app
