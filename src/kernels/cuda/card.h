// What kernels are fitted to: the sizes of a card, and what is found out once for each.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>
#include <utility>

namespace lamina::kernels::cuda {

inline constexpr int kMaxDevices = 64;

struct Card {
  int device = 0;
  int num_sms = 0;
  int block_shared_bytes = 0;  // at most
  int sm_shared_bytes = 0;     // at most, of all blocks together
  bool is_hopper = false;      // or later
};

inline cudaError_t read_card(Card& card) {
  int major = 0;
  const std::pair<int*, cudaDeviceAttr> wanted[] = {
      {&card.num_sms, cudaDevAttrMultiProcessorCount},
      {&card.block_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin},
      {&card.sm_shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor},
      {&major, cudaDevAttrComputeCapabilityMajor}};
  for (const auto& [value, attribute] : wanted) {
    const cudaError_t error = cudaDeviceGetAttribute(value, attribute, card.device);
    if (error != cudaSuccess) return error;
  }
  card.is_hopper = major >= 9;
  return cudaSuccess;
}

// One Value for each device, made by make(card, value) when the current one is first asked for, and
// by each thread that asks meanwhile: loading a kernel may wait for the device, and that for what a
// thread enqueues on another, which must not be held up here. Internally locked. An error of make()
// is returned, and it is called again the next time.
template <typename Value>
class OfDevices {
 public:
  template <typename Make>
  cudaError_t find(const Make& make, Value& value) {
    Card card;
    cudaError_t error = cudaGetDevice(&card.device);
    if (error != cudaSuccess) return error;
    if (card.device >= kMaxDevices) return cudaErrorInvalidDevice;
    if (get(card.device, value)) return cudaSuccess;
    error = read_card(card);
    Value made{};
    if (error == cudaSuccess) error = make(card, made);
    if (error != cudaSuccess) return error;
    value = made;
    const std::lock_guard lock(mutex_);
    entries_[card.device] = {true, made};
    return cudaSuccess;
  }

 private:
  bool get(int device, Value& value) {
    const std::lock_guard lock(mutex_);
    const Entry& entry = entries_[device];
    if (entry.is_made) value = entry.value;
    return entry.is_made;
  }

  struct Entry {
    bool is_made = false;
    Value value{};
  };
  std::mutex mutex_;
  Entry entries_[kMaxDevices];
};

}  // namespace lamina::kernels::cuda
