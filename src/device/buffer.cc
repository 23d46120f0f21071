#include "device/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <utility>

#include "base/error.h"
#include "device/cuda/memory.h"

namespace lamina {
namespace {

constexpr size_t kHugeBytes = size_t{4} << 20;

// Host memory comes straight from mmap: zeroed on first touch, page-aligned, so that large KV
// caches and arenas cost resident memory only where they are used.
std::byte* allocate_host(size_t size_bytes) {
  void* mapped = ::mmap(nullptr,
                        size_bytes,
                        PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1,
                        0);
  if (mapped == MAP_FAILED) {
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("cannot allocate {} bytes of host memory", size_bytes));
  }
  // Huge pages where the kernel has them: blocks of a KV cache lie far apart, and looking up an
  // address would take longer than reading what is there. Refusal costs speed alone.
  if (size_bytes >= kHugeBytes) ::madvise(mapped, size_bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(mapped);
}

}  // namespace

Buffer::Buffer(MemoryKind kind, size_t size_bytes) : size_bytes_(size_bytes), kind_(kind) {
  if (size_bytes == 0) return;
  data_ = kind == MemoryKind::kHost ? allocate_host(size_bytes) : cuda::allocate(kind, size_bytes);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      kind_(other.kind_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(kind_, other.kind_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (kind_ == MemoryKind::kHost) {
    ::munmap(data_, size_bytes_);
  } else {
    cuda::release(kind_, data_);
  }
}

}  // namespace lamina
