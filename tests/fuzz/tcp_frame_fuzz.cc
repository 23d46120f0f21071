// A byte stream as a hostile peer could send it, in pieces whose size the first byte says.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "transport/tcp/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = size_t{data[0]} + 1;
  auto stream = std::as_bytes(std::span(data, size)).subspan(1);
  const std::vector<size_t> capacities = {0, 1, 40, 500};
  std::vector<uint64_t> last_seqs(capacities.size(), 0);
  lamina::FrameReceiver receiver(capacities);
  while (!stream.empty()) {
    const std::span<std::byte> want = receiver.want();
    if (want.empty()) std::abort();
    const size_t count = std::min({want.size(), stream.size(), piece});
    std::memcpy(want.data(), stream.data(), count);
    stream = stream.subspan(count);
    const auto frame = receiver.advance(count);
    if (!frame.ok()) return 0;
    if (!frame->has_value()) continue;
    const lamina::FrameHeader& header = **frame;
    if (header.slot >= capacities.size() || header.payload_bytes > capacities[header.slot] ||
        header.seq <= last_seqs[header.slot]) {
      std::abort();
    }
    last_seqs[header.slot] = header.seq;
  }
  return 0;
}
