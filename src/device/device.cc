#include "device/device.h"

#include <fmt/format.h>

#include <charconv>

namespace lamina {

std::string device_name(Device device) {
  switch (device.kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return fmt::format("cuda:{}", device.idx);
  }
  return "unknown";
}

Result<Device> parse_device(std::string_view name) {
  if (name == "cpu") return Device{DeviceKind::kCpu, 0};
  if (name == "cuda") return Device{DeviceKind::kCuda, 0};
  constexpr std::string_view kCudaPrefix = "cuda:";
  if (name.starts_with(kCudaPrefix)) {
    const std::string_view digits = name.substr(kCudaPrefix.size());
    int32_t idx = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), idx);
    if (error == std::errc() && end == digits.data() + digits.size() && idx >= 0) {
      return Device{DeviceKind::kCuda, idx};
    }
  }
  return invalid_argument(fmt::format("device '{}' is not 'cpu', 'cuda' or 'cuda:N'", name));
}

}  // namespace lamina
