// DeviceSpec: what a device can do and costs, as its maker and its seller say. Plain values; the
// planner's catalogue reads them from a file.
#pragma once

#include <string>

namespace lamina {

struct DeviceSpec {
  std::string name;
  double flop_per_s = 0;  // dense, of 16-bit floats
  double memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double link_bytes_per_s = 0;     // to devices of its own node, one way
  double network_bytes_per_s = 0;  // its NIC, one way
  double power_w = 0;              // 0: unknown
  double dollars_per_h = 0;
};

}  // namespace lamina
