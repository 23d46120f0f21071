#include "model/weights/fingerprint.h"

#include <algorithm>
#include <cstring>

namespace lamina {
namespace {

// SplitMix64's finaliser: every bit of the word reaches every bit of the hash.
uint64_t mix(uint64_t hash, uint64_t word) {
  uint64_t z = (hash ^ word) + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

uint64_t word_at(const std::byte* bytes, size_t size) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, std::min(size, sizeof(word)));
  return word;
}

uint64_t hash_bytes(uint64_t hash, const std::byte* bytes, size_t size) {
  for (size_t i = 0; i < size; i += sizeof(uint64_t))
    hash = mix(hash, word_at(bytes + i, size - i));
  return mix(hash, size);
}

}  // namespace

uint64_t hash_tensor(uint64_t hash, std::string_view name, const TensorView& tensor) {
  constexpr size_t kSamples = 16;
  hash = hash_bytes(hash, reinterpret_cast<const std::byte*>(name.data()), name.size());
  hash = mix(hash, static_cast<uint64_t>(tensor.dtype));
  for (int axis = 0; axis < tensor.shape.rank(); ++axis) {
    hash = mix(hash, static_cast<uint64_t>(tensor.shape[axis]));
  }
  const size_t size = tensor.size_bytes();
  const size_t last = size - std::min(size, sizeof(uint64_t));
  for (size_t i = 0; i < kSamples; ++i) {
    const size_t at = last / (kSamples - 1) * i + last % (kSamples - 1) * i / (kSamples - 1);
    hash = mix(hash, word_at(tensor.data + at, size - at));
  }
  return hash;
}

}  // namespace lamina
