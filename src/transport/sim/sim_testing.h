// What the tests of the simulated network share: configurations and message contents.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "base/rng.h"
#include "transport/endpoint.h"

namespace lamina::sim_testing {

inline TimePoint at(Duration since_start) {
  return TimePoint(since_start);
}

inline const std::vector<size_t> kSlots = {1000, 64, 0};

inline EndpointConfig side_config(uint64_t self, uint64_t peer, uint64_t epoch = 1) {
  EndpointConfig config;
  config.self = {.id = self, .epoch = epoch};
  config.peer = {.id = peer, .epoch = epoch};
  config.receive_slots = config.send_slots = kSlots;
  return config;
}

inline std::vector<std::byte> message_bytes(size_t size_bytes, uint64_t seed) {
  std::vector<std::byte> bytes(size_bytes);
  Rng rng(seed);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next_u64());
  return bytes;
}

inline bool is_equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace lamina::sim_testing
