// GPU memory that processes share, by the driver's virtual memory: one physical allocation, which
// each process maps at an address of its own for its own GPU. Importing it takes a reference, so
// that a peer's death leaves mappings valid.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <utility>

#include "base/checked_math.h"
#include "base/log.h"
#include "base/unique_handle.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "transport/cuda_p2p/driver.h"
#include "transport/cuda_p2p/shared_memory.h"

namespace lamina::cuda_p2p {
namespace {

constexpr CUmemAllocationHandleType kHandleType = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

void log_failure(CUresult result, const char* what) noexcept {
  if (result != CUDA_SUCCESS) log_error("{}: CUDA driver error {}", what, static_cast<int>(result));
}

struct AllocationTraits {
  using Raw = CUmemGenericAllocationHandle;
  static constexpr Raw kInvalid = 0;
  static void destroy(Raw raw) noexcept {
    log_failure(driver().release(raw), "releasing shared GPU memory");
  }
};
using Allocation = UniqueHandle<AllocationTraits>;

CUmemLocation location_of(Device device) {
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device.idx;
  return location;
}

CUmemAllocationProp properties_of(Device device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = kHandleType;
  properties.location = location_of(device);
  return properties;
}

// The device's context is made, and is current while this lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(Device device) : guard_(device) {
    cuda::throw_if_error(cudaFree(nullptr), device_name(device));
  }

 private:
  cuda::DeviceGuard guard_;
};

// To whole pages of GPUs. All of a host have the same.
size_t whole_pages(size_t size_bytes, Device device) {
  const CUmemAllocationProp properties = properties_of(device);
  size_t page_bytes = 0;
  throw_if_error(
      driver().granularity(&page_bytes, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
      "asking for the size of a GPU's pages");
  return round_up(size_bytes, page_bytes);
}

// A range of addresses where `allocation` is mapped for `device`.
class Mapping {
 public:
  Mapping(const Allocation& allocation, size_t size_bytes, Device device)
      : size_bytes_(size_bytes) {
    throw_if_error(driver().reserve(&address_, size_bytes_, 0, 0, 0), "reserving GPU addresses");
    try {
      map(allocation, device);
    } catch (...) {
      log_failure(driver().free_address(address_, size_bytes_), "freeing GPU addresses");
      throw;
    }
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    log_failure(driver().unmap(address_, size_bytes_), "unmapping shared GPU memory");
    log_failure(driver().free_address(address_, size_bytes_), "freeing GPU addresses");
  }

  [[nodiscard]] std::byte* data() const { return reinterpret_cast<std::byte*>(address_); }

 private:
  void map(const Allocation& allocation, Device device) {
    throw_if_error(driver().map(address_, size_bytes_, 0, allocation.get(), 0),
                   "mapping shared GPU memory");
    CUmemAccessDesc access{};
    access.location = location_of(device);
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    try {
      throw_if_error(
          driver().set_access(address_, size_bytes_, &access, 1),
          fmt::format("{} cannot reach the memory of the other GPU", device_name(device)));
    } catch (...) {
      log_failure(driver().unmap(address_, size_bytes_), "unmapping shared GPU memory");
      throw;
    }
  }

  CUdeviceptr address_ = 0;
  size_t size_bytes_;
};

class GpuSharedMemory final : public SharedMemory {
 public:
  GpuSharedMemory(Allocation allocation, size_t size_bytes, Device device)
      : device_(device),
        size_bytes_(size_bytes),
        allocation_(std::move(allocation)),
        mapping_(allocation_, size_bytes, device) {}

  [[nodiscard]] std::byte* data() const override { return mapping_.data(); }
  [[nodiscard]] FileHandle descriptor() const override {
    int descriptor = -1;
    throw_if_error(driver().export_handle(&descriptor, allocation_.get(), kHandleType, 0),
                   "sharing GPU memory");
    return FileHandle(descriptor);
  }
  [[nodiscard]] Status clear() override {
    const cuda::DeviceGuard guard(device_);
    LAMINA_RETURN_IF_ERROR(
        cuda::to_status(cudaMemset(data(), 0, size_bytes_), "clearing shared GPU memory"));
    return cuda::to_status(cudaStreamSynchronize(nullptr), "clearing shared GPU memory");
  }

 private:
  Device device_;
  size_t size_bytes_;
  Allocation allocation_;
  Mapping mapping_;
};

}  // namespace

std::unique_ptr<SharedMemory> make_gpu_memory(size_t size_bytes, Device device) {
  const CurrentDevice current(device);
  const size_t bytes = whole_pages(size_bytes, device);
  const CUmemAllocationProp properties = properties_of(device);
  CUmemGenericAllocationHandle raw = 0;
  throw_if_error(driver().create(&raw, bytes, &properties, 0),
                 fmt::format("allocating {} bytes of {} to share", bytes, device_name(device)));
  auto memory = std::make_unique<GpuSharedMemory>(Allocation(raw), bytes, device);
  lamina::throw_if_error(memory->clear());
  return memory;
}

// The import keeps its own reference; the descriptor may be closed.
std::unique_ptr<SharedMemory> map_gpu_memory(FileHandle descriptor,
                                             size_t size_bytes,
                                             Device device) {
  const CurrentDevice current(device);
  const size_t bytes = whole_pages(size_bytes, device);
  CUmemGenericAllocationHandle raw = 0;
  void* const handle = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor.get()));
  throw_if_error(driver().import_handle(&raw, handle, kHandleType),
                 "taking the GPU memory of another process");
  return std::make_unique<GpuSharedMemory>(Allocation(raw), bytes, device);
}

std::byte* pin_host_memory(std::byte* data, size_t size_bytes, Device device) {
  const CurrentDevice current(device);
  cuda::throw_if_error(
      cudaHostRegister(data, size_bytes, cudaHostRegisterMapped | cudaHostRegisterPortable),
      fmt::format("pinning {} bytes of host memory", size_bytes));
  void* mapped = nullptr;
  const cudaError_t error = cudaHostGetDevicePointer(&mapped, data, 0);
  if (error != cudaSuccess) {
    unpin_host_memory(data);
    cuda::throw_if_error(error, "mapping host memory for a GPU");
  }
  return static_cast<std::byte*>(mapped);
}

void unpin_host_memory(std::byte* data) noexcept {
  const cudaError_t error = cudaHostUnregister(data);
  if (error != cudaSuccess) log_error("unpinning host memory: {}", cudaGetErrorString(error));
}

}  // namespace lamina::cuda_p2p
