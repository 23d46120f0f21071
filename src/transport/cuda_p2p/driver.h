// The driver's functions for virtual memory, found through the runtime: nothing links the driver.
// Included by CUDA code of this folder alone.
#pragma once

#include <cuda.h>

#include <string_view>

namespace lamina::cuda_p2p {

struct Driver {
  decltype(&::cuGetErrorString) error_string = nullptr;
  decltype(&::cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&::cuMemCreate) create = nullptr;
  decltype(&::cuMemRelease) release = nullptr;
  decltype(&::cuMemAddressReserve) reserve = nullptr;
  decltype(&::cuMemAddressFree) free_address = nullptr;
  decltype(&::cuMemMap) map = nullptr;
  decltype(&::cuMemUnmap) unmap = nullptr;
  decltype(&::cuMemSetAccess) set_access = nullptr;
  decltype(&::cuMemExportToShareableHandle) export_handle = nullptr;
  decltype(&::cuMemImportFromShareableHandle) import_handle = nullptr;
};

// Found once for the process. Throws Error kUnavailable where the driver lacks one.
const Driver& driver();

// Throws Error kResourceExhausted where there is no memory, kUnavailable else: "`what`: reason".
void throw_if_error(CUresult result, std::string_view what);

}  // namespace lamina::cuda_p2p
