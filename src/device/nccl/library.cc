#include "device/nccl/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "base/error.h"

namespace lamina::nccl {
namespace {

const std::string kName = "libnccl.so." + std::to_string(NCCL_MAJOR);

// NCCL reads its settings from the environment alone. What the user has set stays.
void set_defaults() {
  constexpr int kKeep = 0;
  // No multicast over NVLink: hosts lend GPUs whose fabric does not let us use it.
  ::setenv("NCCL_NVLS_ENABLE", "0", kKeep);
  // All is connected at the start, and captures register no buffers: both would have a rank wait
  // for the others within a call.
  ::setenv("NCCL_RUNTIME_CONNECT", "0", kKeep);
  ::setenv("NCCL_GRAPH_REGISTER", "0", kKeep);
}

// By the usual search, then where the toolkit was at build time.
void* open_library() {
  if (void* const found = ::dlopen(kName.c_str(), RTLD_NOW | RTLD_LOCAL)) return found;
  if (void* const found =
          ::dlopen((LAMINA_CUDA_LIBRARY_DIR "/" + kName).c_str(), RTLD_NOW | RTLD_LOCAL)) {
    return found;
  }
  throw Error(
      StatusCode::kUnavailable,
      kName +
          " is not there, by which GPUs send each other data: install libnccl2, or the Python "
          "package nvidia-nccl-cu13 and add its folder to LD_LIBRARY_PATH");
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) throw Error(StatusCode::kUnavailable, kName + " has no " + name);
}

Library load() {
  set_defaults();
  void* const opened = open_library();
  Library library;
  find(opened, "ncclGetVersion", library.version);
  find(opened, "ncclGetUniqueId", library.unique_id);
  find(opened, "ncclCommInitAll", library.init_all);
  find(opened, "ncclCommInitRankConfig", library.init_rank);
  find(opened, "ncclCommGetAsyncError", library.async_error);
  find(opened, "ncclGroupStart", library.group_start);
  find(opened, "ncclGroupEnd", library.group_end);
  find(opened, "ncclAllGather", library.all_gather);
  find(opened, "ncclSend", library.send);
  find(opened, "ncclRecv", library.receive);
  find(opened, "ncclCommAbort", library.abort);
  find(opened, "ncclCommDestroy", library.destroy);
  find(opened, "ncclGetErrorString", library.error_string);
  return library;
}

}  // namespace

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace lamina::nccl
