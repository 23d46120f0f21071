// The functions of NCCL's library by which GPUs put data into each other's memory over an RDMA NIC
// themselves (GIN), found when they are first wanted: they came after those of library.h. Included
// by rdma/ alone.
#pragma once

#include <nccl.h>
// After nccl.h, which it needs.
#include <nccl_device.h>

namespace lamina::rdma {

static_assert(NCCL_VERSION_CODE >= 22907,
              "the first whose communicators tell what NICs GPUs can drive");

struct GinLibrary {
  decltype(&::ncclCommQueryProperties) query_properties = nullptr;
  decltype(&::ncclDevCommCreate) create_device_communicator = nullptr;
  decltype(&::ncclCommWindowRegister) register_window = nullptr;
  decltype(&::ncclMemAlloc) allocate = nullptr;
  decltype(&::ncclMemFree) release = nullptr;
};

// Loaded once for the process. Throws Error kUnavailable where the library is not, or has no such
// functions.
const GinLibrary& gin_library();

}  // namespace lamina::rdma
