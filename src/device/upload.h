// Uploads: what a step brings from the host to a GPU, pieces of one memory, by a single launch. A
// copy of its own for each piece takes the host 4 to 8 us.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "device/stream.h"

namespace lamina {

inline constexpr size_t kUploadAlignment = 16;

// Bytes [begin, end) of both sides.
struct UploadPiece {
  uint32_t begin = 0;  // a multiple of kUploadAlignment
  uint32_t end = 0;
};

// Enqueues copies of the pieces of `from`, pinned memory of the host that stays as it is until they
// are done, to the same places of `to`, memory of the stream's GPU. Each is copied up to a multiple
// of kUploadAlignment, which both sides have room for. May be captured. kUnimplemented in a build
// without CUDA.
[[nodiscard]] Status upload(std::byte* to,
                            const std::byte* from,
                            std::span<const UploadPiece> pieces,
                            StreamView stream);

}  // namespace lamina
