// Memory that operators write between their launches: a piece for each stream and use, kept until
// the program ends. Two streams never share one. Not for what outlives an operator.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "device/stream.h"

namespace lamina::kernels::cuda {

// kSampling is pinned memory of the host, all others are of the stream's device.
enum class WorkspaceUse : uint8_t { kProducts, kNarrowProducts, kExperts, kSampling };

// At least `size_bytes`, aligned to 256; zeros when it is new, later what was written there before
// may be there still. A larger piece than before is allocated, twice as large at least, which waits
// for the device; the smaller one stays valid, since captured graphs may hold on to it, so that all
// together are less than twice the largest. Internally locked; one thread at a time uses a stream.
// Errors: kFailedPrecondition if memory is wanting while the stream is captured: run the same once
// before capture. kResourceExhausted, kUnavailable as Buffer has them.
[[nodiscard]] Result<std::byte*> workspace(StreamView stream, WorkspaceUse use, size_t size_bytes);

}  // namespace lamina::kernels::cuda
