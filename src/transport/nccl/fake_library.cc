#include "transport/nccl/fake_library.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

// What the two ranks of an id share.
struct Wire {
  std::mutex mutex;
  std::deque<std::vector<std::byte>> to_rank[2];
  int num_ranks = 0;
};

}  // namespace

// What NCCL's handle points to.
struct ncclComm {
  struct Awaited {
    void* data = nullptr;
    size_t size_bytes = 0;
  };
  std::shared_ptr<Wire> wire;
  int rank = 0;
  std::deque<Awaited> awaited = {};  // the wire's mutex is held
};

namespace lamina::nccl::testing {
namespace {

std::atomic<int> num_communicators{0};
std::atomic<bool> network_is_broken{false};

std::shared_ptr<Wire> wire_of(const ncclUniqueId& id) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Wire>> wires;
  const std::lock_guard lock(mutex);
  std::weak_ptr<Wire>& known = wires[std::string(id.internal, sizeof(id.internal))];
  std::shared_ptr<Wire> wire = known.lock();
  if (wire == nullptr) known = wire = std::make_shared<Wire>();
  return wire;
}

// Calls of the group that this thread has begun.
thread_local std::vector<std::function<void()>> group;

ncclResult_t tell_version(int* version) {
  *version = 22809;
  return ncclSuccess;
}
ncclResult_t tell_newer_version(int* version) {
  *version = 23000;
  return ncclSuccess;
}

ncclResult_t make_id(ncclUniqueId* id) {
  static std::atomic<uint64_t> count{0};
  *id = {};
  const uint64_t name = ++count;
  std::memcpy(id->internal, &name, sizeof(name));
  return ncclSuccess;
}

// As NCCL's, ready when the other rank is there.
ncclResult_t init_rank(
    ncclComm_t* comm, int num_ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (num_ranks != 2 || config->blocking != 0) return ncclInvalidArgument;
  *comm = new ncclComm{.wire = wire_of(id), .rank = rank};
  ++num_communicators;
  const std::lock_guard lock((*comm)->wire->mutex);
  ++(*comm)->wire->num_ranks;
  return ncclInProgress;
}

// Takes what has come. A message of another size than awaited never does, as with NCCL.
bool is_done(ncclComm& comm) {
  auto& messages = comm.wire->to_rank[comm.rank];
  while (!comm.awaited.empty() && !messages.empty()) {
    const ncclComm::Awaited& next = comm.awaited.front();
    if (messages.front().size() != next.size_bytes) return false;
    std::memcpy(next.data, messages.front().data(), next.size_bytes);
    messages.pop_front();
    comm.awaited.pop_front();
  }
  return comm.awaited.empty() && comm.wire->num_ranks == 2;
}

ncclResult_t async_error(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(comm->wire->mutex);
  *state = network_is_broken ? ncclRemoteError : is_done(*comm) ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}

ncclResult_t start_group() {
  group.clear();
  return ncclSuccess;
}

ncclResult_t end_group() {
  for (const auto& call : std::exchange(group, {})) call();
  return ncclInProgress;
}

ncclResult_t send(const void* data,
                  size_t count,
                  ncclDataType_t /*type*/,
                  int peer,
                  ncclComm_t comm,
                  cudaStream_t /*stream*/) {
  group.emplace_back([=] {
    const auto* bytes = static_cast<const std::byte*>(data);
    const std::lock_guard lock(comm->wire->mutex);
    comm->wire->to_rank[peer].emplace_back(bytes, bytes + count);
  });
  return ncclSuccess;
}

ncclResult_t receive(void* data,
                     size_t count,
                     ncclDataType_t /*type*/,
                     int /*peer*/,
                     ncclComm_t comm,
                     cudaStream_t /*stream*/) {
  group.emplace_back([=] {
    const std::lock_guard lock(comm->wire->mutex);
    comm->awaited.push_back({.data = data, .size_bytes = count});
  });
  return ncclSuccess;
}

ncclResult_t abort_communicator(ncclComm_t comm) {
  delete comm;
  --num_communicators;
  return ncclSuccess;
}

const char* error_string(ncclResult_t result) {
  return result == ncclRemoteError ? "the network has failed" : "a fake error";
}

Library make_library() {
  Library library;
  library.version = tell_version;
  library.unique_id = make_id;
  library.init_rank = init_rank;
  library.async_error = async_error;
  library.group_start = start_group;
  library.group_end = end_group;
  library.send = send;
  library.receive = receive;
  library.abort = abort_communicator;
  library.error_string = error_string;
  return library;
}

}  // namespace

const Library& fake_library() {
  static const Library library = make_library();
  return library;
}

const Library& newer_fake_library() {
  static const Library library = [] {
    Library newer = make_library();
    newer.version = tell_newer_version;
    return newer;
  }();
  return library;
}

int num_fake_communicators() {
  return num_communicators;
}

void break_fake_network(bool is_broken) {
  network_is_broken = is_broken;
}

}  // namespace lamina::nccl::testing
