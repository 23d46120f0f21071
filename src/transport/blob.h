// Blob: what one side of an endpoint tells the other over the control plane before they connect:
// who it is, whom it expects, the shape of its slots, a random token and where to find it. One line
// of text. Used by the backends of this room alone. Plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "transport/endpoint.h"

namespace lamina {

// 128 random bits; whoever presents them was told by the control plane.
using Token = std::array<std::byte, 16>;

// From the kernel's generator. Throws Error kUnavailable if it gives none.
Token random_token();
// In a time that does not depend on where the bytes differ.
bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);
// Lower-case hex text of any bytes.
std::string to_hex(std::span<const std::byte> bytes);

struct Blob {
  TransportKind kind = TransportKind::kTcp;
  PeerId from;
  PeerId to;
  Token token{};
  uint64_t receive_digest = 0;  // slots_digest() of what the sender of the blob receives
  uint64_t send_digest = 0;     // and of what it sends
  std::string locator;          // the backend's: a region's name, a port; never empty, no spaces
};

// Two configurations of one endpoint agree if their digests do. FNV-1a over the capacities.
uint64_t slots_digest(std::span<const size_t> capacities);

// The blob of an endpoint configured so.
Blob make_blob(const EndpointConfig& config, const Token& token, std::string locator);
std::string encode_blob(const Blob& blob);
// Reads a blob and checks that it is for an endpoint configured so. Throws Error: kInvalidArgument
// for text that is no blob, another backend or other slots; kUnauthenticated for another peer or
// epoch, on either side.
Blob decode_blob(const std::string& text, const EndpointConfig& config);

}  // namespace lamina
