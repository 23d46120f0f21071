// Rng: seeded random numbers, the same on every platform. Counter-based (SplitMix64 over seed and
// counter), so the n-th draw of a seed can be had without the n-1 before it: a sequence that is
// preempted and replayed draws the same numbers. Confined to one thread.
#pragma once

#include <cstdint>

namespace lamina {

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t counter = 0) : seed_(mix(seed)), counter_(counter) {}

  // Uniform over all 64-bit values.
  uint64_t next_u64() { return mix(seed_ + 0x9E3779B97F4A7C15ULL * ++counter_); }
  // Uniform in [0, 1), 24 bits of precision.
  float next_float() { return static_cast<float>(next_u64() >> 40) * 0x1.0p-24F; }
  // Uniform in [0, 1), 53 bits of precision.
  double next_double() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }
  // Uniform in [0, bound); bound > 0. The bias is below bound / 2^64.
  uint64_t next_below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<Uint128>(next_u64()) * bound) >> 64);
  }

 private:
  __extension__ using Uint128 = unsigned __int128;

  static uint64_t mix(uint64_t z) {  // SplitMix64's finaliser
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }

  uint64_t seed_;
  uint64_t counter_;
};

}  // namespace lamina
