// Host memory behind a descriptor: sealed, so that nobody can take pages away from under whoever
// has mapped it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "transport/cuda_p2p/shared_memory.h"

namespace lamina::cuda_p2p {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Error out_of_memory(size_t size_bytes) {
  return {StatusCode::kResourceExhausted,
          fmt::format("sharing {} bytes of host memory: {}",
                      size_bytes,
                      std::generic_category().message(errno))};
}

size_t whole_pages(size_t size_bytes) {
  return round_up(size_bytes, static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
}

class HostSharedMemory final : public SharedMemory {
 public:
  HostSharedMemory(FileHandle file, size_t size_bytes, Device device)
      : file_(std::move(file)), size_bytes_(size_bytes), device_(device) {
    void* const mapped = ::mmap(
        nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file_.get(), 0);
    if (mapped == MAP_FAILED) throw out_of_memory(size_bytes);
    mapped_ = static_cast<std::byte*>(mapped);
    data_ = mapped_;
    if (!is_on_gpu()) return;
    try {
      data_ = pin_host_memory(mapped_, size_bytes, device);
    } catch (...) {
      ::munmap(mapped_, size_bytes_);
      throw;
    }
  }
  HostSharedMemory(const HostSharedMemory&) = delete;
  HostSharedMemory& operator=(const HostSharedMemory&) = delete;
  ~HostSharedMemory() override {
    if (is_on_gpu()) unpin_host_memory(mapped_);
    ::munmap(mapped_, size_bytes_);
  }

  [[nodiscard]] std::byte* data() const override { return data_; }
  [[nodiscard]] FileHandle descriptor() const override {
    FileHandle copy(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy) throw Error(StatusCode::kInternal, "no more file descriptors");
    return copy;
  }
  [[nodiscard]] Status clear() override {
    std::memset(mapped_, 0, size_bytes_);
    return {};
  }

 private:
  [[nodiscard]] bool is_on_gpu() const { return device_.kind == DeviceKind::kCuda; }

  FileHandle file_;
  size_t size_bytes_;
  Device device_;
  std::byte* mapped_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace

std::unique_ptr<SharedMemory> make_host_memory(size_t size_bytes, Device device) {
  const size_t bytes = whole_pages(size_bytes);
  FileHandle file(::memfd_create("lamina-messages", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) {
    throw out_of_memory(bytes);
  }
  return std::make_unique<HostSharedMemory>(std::move(file), bytes, device);
}

std::unique_ptr<SharedMemory> map_host_memory(FileHandle descriptor,
                                              size_t size_bytes,
                                              Device device) {
  const size_t bytes = whole_pages(size_bytes);
  struct stat status{};
  if (::fcntl(descriptor.get(), F_GET_SEALS) != kSeals || ::fstat(descriptor.get(), &status) != 0 ||
      status.st_size != static_cast<off_t>(bytes)) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("the other process gave no sealed memory of {} bytes", bytes));
  }
  return std::make_unique<HostSharedMemory>(std::move(descriptor), bytes, device);
}

}  // namespace lamina::cuda_p2p
