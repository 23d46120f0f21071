// ControlAddress: where a control server listens, as users write it ("host:port"). Plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lamina::control {

struct ControlAddress {
  std::string host = "127.0.0.1";  // name, IPv4 or IPv6 address, without brackets
  uint16_t port = 0;               // 0, when listening: any free one

  // "host:port", "[v6]:port".
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const ControlAddress&, const ControlAddress&) = default;
};

// Reads "host:port" or "[v6]:port". kInvalidArgument otherwise.
Result<ControlAddress> parse_control_address(std::string_view text);

}  // namespace lamina::control
