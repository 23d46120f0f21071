#include "transport/nccl/communicator.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "device/buffer.h"
#include "device/cuda/stream.h"
#include "device/gpu_stream.h"

namespace lamina::nccl {
namespace {

// What NCCL may take to enqueue a group; it has nobody to wait for.
constexpr Duration kCallTime = std::chrono::seconds(10);
// Blocks of a kernel that waits for the other rank: they keep others from running.
constexpr int kMaxBlocks = 4;

cudaStream_t raw(StreamView stream) {
  return static_cast<cudaStream_t>(stream.cuda_stream());
}

void pause() {
  constexpr std::chrono::microseconds kNap(20);
  std::this_thread::sleep_for(kNap);
}

}  // namespace

Communicator::Communicator(const Library& library, const Config& config, Deadline deadline)
    : library_(library), peer_(1 - config.rank), device_(config.device) {
  try {
    connect(config, deadline);
  } catch (...) {
    abort();
    if (aborting_.joinable()) aborting_.join();
    throw;
  }
}

Communicator::~Communicator() {
  abort();
  if (aborting_.joinable()) aborting_.join();
}

void Communicator::connect(const Config& config, Deadline deadline) {
  use_device_of(StreamView(device_, nullptr));
  ncclConfig_t settings = NCCL_CONFIG_INITIALIZER;
  settings.blocking = 0;
  settings.maxCTAs = kMaxBlocks;
  const ncclResult_t begun = library_.init_rank(&comm_, 2, config.id, config.rank, &settings);
  throw_if_error(wait_for_call(begun, "connecting GPUs by NCCL", deadline));
  if (device_.kind == DeviceKind::kCpu) return exchange_first_word({device_, nullptr}, deadline);
  const GpuStream stream(device_);
  exchange_first_word(stream.view(), deadline);
}

// Each way: NCCL connects what sends to what receives when they are first used, together with the
// other rank.
void Communicator::exchange_first_word(StreamView stream, Deadline deadline) {
  const Buffer word(memory_of(device_.kind), sizeof(uint64_t));
  const Part part = {.data = word.data(), .size_bytes = word.size_bytes()};
  const bool is_first = peer_ == 1;
  for (const bool sends : {is_first, !is_first}) {
    std::unique_lock lock(mutex_);
    const ncclResult_t begun =
        enqueue(sends ? Direction::kSend : Direction::kReceive, {&part, 1}, stream);
    lock.unlock();
    Status ended = wait_for_call(begun, "exchanging a first word by NCCL", deadline);
    while (ended.ok() && has_pending_work(stream)) {
      if (deadline.has_passed())
        ended = deadline_exceeded("the other GPU has sent nothing in time");
      pause();
    }
    if (ended.ok()) continue;
    // The word is NCCL's until the abort has ended what uses it.
    abort();
    static_cast<void>(synchronize(stream));
    throw Error(ended.code(), ended.message());
  }
}

Status Communicator::to_status(ncclResult_t result, std::string_view what) const {
  if (result == ncclSuccess) return {};
  return unavailable(fmt::format("{}: {}", what, library_.error_string(result)));
}

ncclResult_t Communicator::enqueue(Direction direction,
                                   std::span<const Part> parts,
                                   StreamView stream) {
  ncclResult_t result = library_.group_start();
  if (result != ncclSuccess) return result;
  for (const Part& part : parts) {
    result =
        direction == Direction::kSend
            ? library_.send(part.data, part.size_bytes, ncclInt8, peer_, comm_, raw(stream))
            : library_.receive(part.data, part.size_bytes, ncclInt8, peer_, comm_, raw(stream));
    if (result != ncclSuccess && result != ncclInProgress) break;
  }
  const ncclResult_t ended = library_.group_end();
  return result == ncclSuccess || result == ncclInProgress ? ended : result;
}

// Of a call that has returned: until NCCL is done with it.
Status Communicator::wait_for_call(ncclResult_t returned,
                                   std::string_view what,
                                   Deadline deadline) {
  ncclResult_t state = returned;
  while (state == ncclInProgress) {
    {
      const std::lock_guard lock(mutex_);
      if (is_aborted_) return unavailable("the GPUs' connection was given up");
      const ncclResult_t asked = library_.async_error(comm_, &state);
      if (asked != ncclSuccess) return to_status(asked, what);
    }
    if (state != ncclInProgress) break;
    if (deadline.has_passed()) return deadline_exceeded(fmt::format("{}: not in time", what));
    pause();
  }
  return to_status(state, what);
}

Status Communicator::run_group(Direction direction,
                               std::span<const Part> parts,
                               StreamView stream) {
  std::unique_lock lock(mutex_);
  if (is_aborted_) return unavailable("the GPUs' connection was given up");
  const ncclResult_t returned = enqueue(direction, parts, stream);
  lock.unlock();
  return wait_for_call(returned,
                       direction == Direction::kSend ? "sending by NCCL" : "receiving by NCCL",
                       Deadline::after(kCallTime));
}

Status Communicator::send(std::span<const Part> parts, StreamView stream) {
  return run_group(Direction::kSend, parts, stream);
}

Status Communicator::receive(std::span<const Part> parts, StreamView stream) {
  return run_group(Direction::kReceive, parts, stream);
}

void Communicator::abort() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(is_aborted_, true) || comm_ == nullptr) return;
  aborting_ = std::thread([this] {
    use_device_of(StreamView(device_, nullptr));
    const Status aborted = to_status(library_.abort(comm_), "aborting an NCCL communicator");
    if (!aborted.ok()) log_error("{}", aborted.message());
  });
}

Status Communicator::check() {
  const std::lock_guard lock(mutex_);
  if (is_aborted_) return unavailable("the GPUs' connection was given up");
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = library_.async_error(comm_, &state);
  if (asked != ncclSuccess) return to_status(asked, "NCCL");
  return state == ncclInProgress ? Status() : to_status(state, "NCCL");
}

}  // namespace lamina::nccl
