#include "app/small_programs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/utsname.h>

#include <cstdio>
#include <fstream>

#include "app/memory.h"
#include "app/output.h"
#include "app/version.h"
#include "base/error.h"
#include "convert/converter.h"
#include "convert/dot.h"
#include "convert/report/conversion_report.h"
#include "convert/report/svg.h"
#include "convert/tensor_parallel.h"
#include "device/topology.h"
#include "exec/memory_plan.h"
#include "model/builder.h"
#include "model/model_files.h"

namespace lamina::app {
namespace {

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
}

// The value of the first line of `path` that begins with `key`.
std::string find_in_file(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(key)) continue;
    const size_t value = line.find_first_not_of(" \t:=\"", key.size());
    return value == std::string::npos ? ""
                                      : line.substr(value, line.find_last_not_of('"') - value + 1);
  }
  return "unknown";
}

std::string simd_features() {
  std::vector<std::string> names;
  if (__builtin_cpu_supports("avx2") != 0) names.emplace_back("avx2");
  if (__builtin_cpu_supports("fma") != 0) names.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f") != 0) names.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512bf16") != 0) names.emplace_back("avx512_bf16");
  if (__builtin_cpu_supports("avx512vnni") != 0) names.emplace_back("avx512_vnni");
  return fmt::format("{}", fmt::join(names, " "));
}

// "0,4 1,5": a core after the other.
std::string join_cores(const NumaNode& node) {
  std::string text;
  for (const CpuList& core : node.cores) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", format_cpu_list(core));
  }
  return text;
}

// What `lamina convert` was asked to print.
std::string describe(const ConvertOptions& options, const ConvertedModel& model) {
  if (options.dot) return dot(model.sliced);
  if (options.svg) return svg(model.sliced);
  const int32_t max_tokens = options.max_num_batched_tokens;
  const MemoryPlan plan =
      plan_memory(model.sliced, {.max_tokens = max_tokens, .max_logits_rows = max_tokens});
  const ActivationMemory memory{.max_tokens = max_tokens,
                                .scratch_bytes = plan.scratch_bytes,
                                .carried_bytes = plan.carried_bytes};
  const ConversionReport report = report_conversion(model);
  return options.json ? report_json(report, model.sliced, memory)
                      : report_text(report, model.sliced, memory);
}

}  // namespace

int run_convert(const ConvertOptions& options) {
  const DType dtype = parse_dtype(options.dtype).value_or_throw();
  const ModelConfig config = read_model_config(options.model);
  const Graph graph = shard_graph(build_graph(config, dtype), 0, options.tensor_parallel_size);
  const ConvertedModel model = convert_model(graph, options.rewrites);
  write_output(options.output, describe(options, model));
  return 0;
}

int run_collect_env() {
  utsname system{};
  uname(&system);
  print(fmt::format("lamina: {}\n", kVersion));
  print(fmt::format("compiler: {}\n", __VERSION__));
  print(fmt::format("system: {} {} {}\n",
                    find_in_file("/etc/os-release", "PRETTY_NAME"),
                    system.release,
                    system.machine));
  print(fmt::format("cpu: {}\n", find_in_file("/proc/cpuinfo", "model name")));
  for (const NumaNode& node : read_topology().nodes) {
    print(fmt::format("NUMA node {}: cores of hardware threads {}\n", node.id, join_cores(node)));
  }
  print(fmt::format("threads: {}\n", available_cores()));
  print(fmt::format("simd: {}\n", simd_features()));
  print(fmt::format("memory: {} MiB available\n", available_memory_bytes() >> 20));
  print("cuda: not in this build\n");
  print(fmt::format("model types: {}\n", fmt::join(supported_model_types(), " ")));
  return 0;
}

}  // namespace lamina::app
