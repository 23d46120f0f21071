// GinWindow: this GPU's memory for the messages of one channel of a link, which NCCL has registered
// with a NIC, and what kernels need to put messages into the other GPU's. Set up with the other
// side; confined to one thread, but for check().
#pragma once

#include <memory>

#include "device/buffer.h"
#include "transport/nccl/communicator.h"
#include "transport/rdma/gin_library.h"
#include "transport/rdma/window_layout.h"

namespace lamina::rdma {

class GinWindow {
 public:
  struct Config {
    Device device{};
    bool listens = false;
    WindowLayout layout;
  };
  // Throws Error: kUnimplemented, saying what is missing, where the GPUs of both sides cannot reach
  // a NIC by themselves; kUnavailable where NCCL refuses, kDeadlineExceeded.
  GinWindow(const GinLibrary& library,
            std::unique_ptr<nccl::Communicator> communicator,
            Config config,
            Deadline deadline);
  GinWindow(const GinWindow&) = delete;
  GinWindow& operator=(const GinWindow&) = delete;
  // Kernels that use it have ended.
  ~GinWindow() = default;

  // A slot's place, here and in the other window.
  struct Place {
    std::byte* header = nullptr;
    size_t offset = 0;
  };
  [[nodiscard]] Place inbox(size_t slot_idx) const { return place(config_.listens, slot_idx); }
  [[nodiscard]] Place outbox(size_t slot_idx) const { return place(!config_.listens, slot_idx); }
  [[nodiscard]] ncclWindow_t handle() const { return window_; }
  // In the device's memory.
  [[nodiscard]] const ncclDevComm* device_communicator() const {
    return reinterpret_cast<const ncclDevComm*>(on_device_.data());
  }
  // What NCCL has noticed by itself, such as a NIC that failed. From any thread.
  [[nodiscard]] Status check() const { return communicator_->check(); }

 private:
  // Memory that NCCL allocates, as NICs and other GPUs reach it.
  class Memory {
   public:
    Memory(const GinLibrary& library, size_t size_bytes);
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();
    [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }

   private:
    const GinLibrary& library_;
    void* data_ = nullptr;
  };

  void require_nic(Deadline deadline);
  void register_memory(Deadline deadline);
  void make_device_communicator(Deadline deadline);
  [[nodiscard]] Place place(bool to_listener, size_t slot_idx) const;

  const GinLibrary& library_;
  Config config_;
  std::unique_ptr<Memory> memory_;
  // Written to by NCCL until its calls are over, which they are once the communicator is gone.
  ncclWindow_t window_ = nullptr;
  ncclDevComm made_{};
  Buffer on_device_;
  std::unique_ptr<nccl::Communicator> communicator_;
};

}  // namespace lamina::rdma
