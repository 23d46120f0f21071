#include "app/small_programs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/utsname.h>

#include <cstdio>
#include <fstream>

#include "app/memory.h"
#include "app/version.h"
#include "convert/slicer.h"
#include "device/thread_pool.h"
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

}  // namespace

int run_convert(const ConvertOptions& options) {
  const auto files = open_model(options.model);
  const DType dtype = parse_dtype(options.dtype).value_or_throw();
  print(slice_model(build_graph(files->config(), dtype)).dump());
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
  print(fmt::format("cores: {}\n", available_cores()));
  print(fmt::format("simd: {}\n", simd_features()));
  print(fmt::format("memory: {} MiB available\n", available_memory_bytes() >> 20));
  print("cuda: not in this build\n");
  print(fmt::format("model types: {}\n", fmt::join(supported_model_types(), " ")));
  return 0;
}

}  // namespace lamina::app
