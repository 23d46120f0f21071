#include "transport/rdma/gin_library.h"

#include "device/nccl/library.h"

namespace lamina::rdma {
namespace {

template <typename Function>
void find(const char* name, Function& function) {
  function = reinterpret_cast<Function>(nccl::find_function(name));
}

GinLibrary load() {
  GinLibrary library;
  find("ncclCommQueryProperties", library.query_properties);
  find("ncclDevCommCreate", library.create_device_communicator);
  find("ncclCommWindowRegister", library.register_window);
  find("ncclMemAlloc", library.allocate);
  find("ncclMemFree", library.release);
  return library;
}

}  // namespace

const GinLibrary& gin_library() {
  static const GinLibrary loaded = load();
  return loaded;
}

}  // namespace lamina::rdma
