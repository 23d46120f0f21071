// Contents of messages that can be checked: different for every word of every message.
#pragma once

#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p::testing {

// Of chunk `idx` of the message with that stamp; a reply's differ from those of its request.
LAMINA_HOST_DEVICE constexpr Chunk pattern(Stamp stamp, uint32_t idx, bool is_reply = false) {
  const uint64_t hash = ((stamp << 20 ^ idx) + (is_reply ? 1 : 0)) * 0x9E3779B97F4A7C15U;
  const auto low = static_cast<uint32_t>(hash);
  const auto high = static_cast<uint32_t>(hash >> 32);
  return {{low, high, low ^ 0x55555555, high + idx}};
}

// Unit `idx` of it, as sources and sinks have them.
LAMINA_HOST_DEVICE constexpr void fill(Chunk& unit,
                                       Stamp stamp,
                                       uint32_t idx,
                                       bool is_reply = false) {
  unit = pattern(stamp, idx, is_reply);
}
LAMINA_HOST_DEVICE constexpr void fill(HalfChunk& unit,
                                       Stamp stamp,
                                       uint32_t idx,
                                       bool is_reply = false) {
  const Chunk chunk = pattern(stamp, idx / 2, is_reply);
  const uint32_t first = idx % 2 * 2;
  unit = {{chunk.words[first], chunk.words[first + 1]}};
}

// Sizes of a stress test's messages: from one chunk to `max_bytes`, small ones as often as large.
LAMINA_HOST_DEVICE constexpr uint32_t stress_bytes(uint64_t message, uint32_t max_bytes) {
  const uint64_t hash = message * 0x9E3779B97F4A7C15U;
  const uint32_t most = max_bytes >> (hash >> 60);
  const uint32_t size = static_cast<uint32_t>((hash >> 20 & 0xFFFFFFF) % (most + 1));
  return size < sizeof(Chunk) ? static_cast<uint32_t>(sizeof(Chunk)) : size;
}

}  // namespace lamina::cuda_p2p::testing
