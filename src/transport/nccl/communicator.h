// Communicator: this GPU's end of an NCCL communicator of two ranks, for messages that are enqueued
// on a stream. No call waits for the other rank: the communicator is a non-blocking one, which is
// polled. Confined to one thread, but for abort() and check().
#pragma once

#include <nccl.h>

#include <mutex>
#include <span>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "device/nccl/library.h"
#include "device/stream.h"

namespace lamina::nccl {

class Communicator {
 public:
  struct Config {
    ncclUniqueId id{};
    int rank = 0;  // 0 or 1
    Device device{};
  };
  // Connects to the other rank, which does so meanwhile, and exchanges a first word with it: what
  // follows finds everything loaded and connected. Throws Error: kUnavailable where NCCL refuses,
  // kDeadlineExceeded if the other has not come.
  Communicator(const Library& library, const Config& config, Deadline deadline);
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  // Aborts. The stream has ended, and graphs in which messages were captured are gone: NCCL waits
  // for them.
  ~Communicator();

  struct Part {
    std::byte* data = nullptr;
    size_t size_bytes = 0;
  };
  // Enqueues parts one after the other, each to a part that the other rank receives in its turn and
  // of the same size. kUnavailable after abort() or where NCCL fails, kDeadlineExceeded.
  [[nodiscard]] Status send(std::span<const Part> parts, StreamView stream);
  [[nodiscard]] Status receive(std::span<const Part> parts, StreamView stream);

  // From any thread, without waiting: messages under way end, with anything in what they receive.
  void abort();
  // What NCCL has noticed by itself, such as a connection that broke.
  [[nodiscard]] Status check();

 private:
  enum class Direction : uint8_t { kSend, kReceive };

  void connect(const Config& config, Deadline deadline);
  void exchange_first_word(StreamView stream, Deadline deadline);
  [[nodiscard]] Status run_group(Direction direction,
                                 std::span<const Part> parts,
                                 StreamView stream);
  [[nodiscard]] ncclResult_t enqueue(Direction direction,
                                     std::span<const Part> parts,
                                     StreamView stream);
  [[nodiscard]] Status wait_for_call(ncclResult_t returned,
                                     std::string_view what,
                                     Deadline deadline);
  [[nodiscard]] Status to_status(ncclResult_t result, std::string_view what) const;

  const Library& library_;
  int peer_;
  Device device_;
  std::mutex mutex_;  // of the communicator's use: none begins once `is_aborted_`
  ncclComm_t comm_ = nullptr;
  bool is_aborted_ = false;
  // An abort ends what is under way at once, and returns when graphs are gone.
  std::thread aborting_;
};

}  // namespace lamina::nccl
