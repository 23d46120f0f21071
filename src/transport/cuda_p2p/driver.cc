#include "transport/cuda_p2p/driver.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/error.h"

namespace lamina::cuda_p2p {
namespace {

template <typename Function>
void find(const char* name, Function& function) {
  constexpr unsigned kSinceVersion = 12000;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, kSinceVersion, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) {
    throw Error(StatusCode::kUnavailable, fmt::format("the CUDA driver has no {}", name));
  }
  function = reinterpret_cast<Function>(found);
}

Driver load() {
  Driver driver;
  find("cuGetErrorString", driver.error_string);
  find("cuMemGetAllocationGranularity", driver.granularity);
  find("cuMemCreate", driver.create);
  find("cuMemRelease", driver.release);
  find("cuMemAddressReserve", driver.reserve);
  find("cuMemAddressFree", driver.free_address);
  find("cuMemMap", driver.map);
  find("cuMemUnmap", driver.unmap);
  find("cuMemSetAccess", driver.set_access);
  find("cuMemExportToShareableHandle", driver.export_handle);
  find("cuMemImportFromShareableHandle", driver.import_handle);
  return driver;
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = load();
  return loaded;
}

void throw_if_error(CUresult result, std::string_view what) {
  if (result == CUDA_SUCCESS) return;
  const char* reason = nullptr;
  driver().error_string(result, &reason);
  throw Error(result == CUDA_ERROR_OUT_OF_MEMORY ? StatusCode::kResourceExhausted
                                                 : StatusCode::kUnavailable,
              fmt::format("{}: {}", what, reason != nullptr ? reason : "unknown error"));
}

}  // namespace lamina::cuda_p2p
