// NCCL's functions, found when they are first wanted instead of being linked: one GPU needs none of
// them, and a program without the library still starts. Included by NCCL code alone.
#pragma once

#include <nccl.h>

namespace lamina::nccl {

struct Library {
  decltype(&::ncclGetVersion) version = nullptr;
  decltype(&::ncclGetUniqueId) unique_id = nullptr;
  decltype(&::ncclCommInitAll) init_all = nullptr;
  decltype(&::ncclCommInitRankConfig) init_rank = nullptr;
  decltype(&::ncclCommGetAsyncError) async_error = nullptr;
  decltype(&::ncclGroupStart) group_start = nullptr;
  decltype(&::ncclGroupEnd) group_end = nullptr;
  decltype(&::ncclAllGather) all_gather = nullptr;
  decltype(&::ncclSend) send = nullptr;
  decltype(&::ncclRecv) receive = nullptr;
  decltype(&::ncclCommAbort) abort = nullptr;
  decltype(&::ncclCommDestroy) destroy = nullptr;
  decltype(&::ncclGetErrorString) error_string = nullptr;
};

// Loaded once for the process, and never closed. Throws Error kUnavailable, saying where it comes
// from, if it is not there.
const Library& library();

}  // namespace lamina::nccl
