// Runs a fuzz target over its corpus and over deterministic mutations of it, where libFuzzer is not
// linked: so that every build and sanitizer tries the decoders on hostile bytes.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

Bytes mutate(Bytes bytes, lamina::Rng& rng) {
  const uint64_t num_changes = 1 + rng.next_below(4);
  for (uint64_t i = 0; i < num_changes && !bytes.empty(); ++i) {
    const size_t at = rng.next_below(bytes.size());
    switch (rng.next_below(4)) {
      case 0:
        bytes[at] = static_cast<uint8_t>(rng.next_u64());
        break;
      case 1:
        bytes[at] ^= static_cast<uint8_t>(1U << rng.next_below(8));
        break;
      case 2:
        bytes.resize(at);
        break;
      default:
        bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at),
                     static_cast<uint8_t>(rng.next_u64()));
        break;
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kMutationsPerSeed = 200;
  size_t num_runs = 0;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::exists(argv[i])) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      const Bytes seed((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      LLVMFuzzerTestOneInput(seed.data(), seed.size());
      lamina::Rng rng(seed.size());
      for (int mutation = 0; mutation < kMutationsPerSeed; ++mutation) {
        const Bytes changed = mutate(seed, rng);
        LLVMFuzzerTestOneInput(changed.data(), changed.size());
      }
      num_runs += 1 + kMutationsPerSeed;
    }
  }
  if (num_runs == 0) {
    std::fprintf(stderr, "no corpus file was found\n");
    return 1;
  }
  std::printf("%zu inputs\n", num_runs);
  return 0;
}
