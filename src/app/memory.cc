#include "app/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "device/cuda/memory.h"
#include "plan/memory_budget.h"

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

// What the control group may still use, if it has a limit.
uint64_t cgroup_room_bytes() {
  uint64_t limit = 0;
  uint64_t used = 0;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max");
  std::ifstream used_file("/sys/fs/cgroup/memory.current");
  if (!(limit_file >> limit) || !(used_file >> used)) return std::numeric_limits<uint64_t>::max();
  return limit > used ? limit - used : 0;
}

}  // namespace

uint64_t available_memory_bytes() {
  return std::min(mem_available_bytes(), cgroup_room_bytes());
}

uint64_t kv_budget_bytes(uint64_t wanted, int32_t num_sharers) {
  if (wanted != 0) return wanted;
  return available_memory_bytes() / 2 / static_cast<uint64_t>(std::max(1, num_sharers));
}

uint64_t gpu_kv_budget_bytes(Device device,
                             uint64_t wanted,
                             double utilization,
                             uint64_t reserved) {
  if (wanted != 0) return wanted;
  const cuda::DeviceMemory memory = cuda::memory_of(device);
  const uint64_t taken = memory.total_bytes - memory.free_bytes + reserved;
  const uint64_t room = kv_room_bytes(memory.total_bytes, utilization, taken);
  if (room == 0) {
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("{}: {} of {} MiB are taken or reserved, --gpu-memory-utilization {} "
                            "leaves nothing for KV",
                            device_name(device),
                            taken >> 20,
                            memory.total_bytes >> 20,
                            utilization));
  }
  log_info("{}: {} of {} MiB for KV, {} MiB are taken or reserved",
           device_name(device),
           room >> 20,
           memory.total_bytes >> 20,
           taken >> 20);
  return room;
}

}  // namespace lamina::app
