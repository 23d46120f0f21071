#include <cuda_runtime.h>

#include <algorithm>

#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "device/upload.h"

namespace lamina {
namespace {

// Of a launch.
constexpr size_t kMaxPieces = 128;
// Of a piece: enough on its way to hide what a read of the host's memory takes.
constexpr unsigned kBlocks = 8;
constexpr unsigned kThreads = 256;

struct Pieces {
  UploadPiece each[kMaxPieces];
};

// A row of the grid for each piece.
__global__ void __launch_bounds__(kThreads)
    upload_kernel(uint4* to, const uint4* from, const __grid_constant__ Pieces pieces) {
  const UploadPiece piece = pieces.each[blockIdx.y];
  const uint32_t end = (piece.end + kUploadAlignment - 1) / kUploadAlignment;
  const uint32_t first = piece.begin / kUploadAlignment + blockIdx.x * kThreads + threadIdx.x;
  for (uint32_t i = first; i < end; i += kBlocks * kThreads) to[i] = from[i];
}

}  // namespace

Status upload(std::byte* to,
              const std::byte* from,
              std::span<const UploadPiece> pieces,
              StreamView stream) {
  while (!pieces.empty()) {
    const auto some = pieces.first(std::min(pieces.size(), kMaxPieces));
    pieces = pieces.subspan(some.size());
    Pieces params{};
    std::ranges::copy(some, params.each);
    upload_kernel<<<dim3(kBlocks, static_cast<unsigned>(some.size())),
                    kThreads,
                    0,
                    cuda::raw(stream)>>>(
        reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4*>(from), params);
    LAMINA_RETURN_IF_ERROR(cuda::to_status(cudaGetLastError(), "bringing a step to a GPU"));
  }
  return {};
}

}  // namespace lamina
