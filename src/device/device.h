// Device and MemoryKind: the names of places where operators run and bytes lie. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lamina {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int32_t idx = 0;

  friend bool operator==(const Device&, const Device&) = default;
};

enum class MemoryKind : uint8_t { kHost, kPinnedHost, kCuda };

// What operators on that device compute in.
[[nodiscard]] constexpr MemoryKind memory_of(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? MemoryKind::kCuda : MemoryKind::kHost;
}
// Host memory that such operators' inputs and outputs are copied from and to without waiting.
[[nodiscard]] constexpr MemoryKind staging_of(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? MemoryKind::kPinnedHost : MemoryKind::kHost;
}

// "cpu", "cuda:1".
std::string device_name(Device device);
// Reads what device_name() writes; "cuda" means "cuda:0". kInvalidArgument otherwise.
Result<Device> parse_device(std::string_view name);

}  // namespace lamina
