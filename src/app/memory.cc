#include "app/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace lamina::app {
namespace {

uint64_t mem_available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  uint64_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    if (key == "MemAvailable:") return kilobytes * 1024;
    std::getline(file, unit);
  }
  return uint64_t{1} << 30;  // no /proc: a modest guess
}

uint64_t cgroup_limit_bytes() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  uint64_t limit = 0;
  return file >> limit ? limit : std::numeric_limits<uint64_t>::max();
}

}  // namespace

uint64_t available_memory_bytes() {
  return std::min(mem_available_bytes(), cgroup_limit_bytes());
}

uint64_t kv_budget_bytes(uint64_t wanted, int32_t num_sharers) {
  if (wanted != 0) return wanted;
  return available_memory_bytes() / 2 / static_cast<uint64_t>(std::max(1, num_sharers));
}

}  // namespace lamina::app
