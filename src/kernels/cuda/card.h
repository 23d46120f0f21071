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

// One Value for each device, made by make(card, value) when the current one is first asked for.
// Internally locked. An error of make() is returned, and it is called again the next time.
template <typename Value>
class OfDevices {
 public:
  template <typename Make>
  cudaError_t find(const Make& make, Value& value) {
    Card card;
    cudaError_t error = cudaGetDevice(&card.device);
    if (error != cudaSuccess) return error;
    if (card.device >= kMaxDevices) return cudaErrorInvalidDevice;
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[card.device];
    if (!entry.is_made) {
      error = read_card(card);
      if (error == cudaSuccess) error = make(card, entry.value);
      entry.is_made = error == cudaSuccess;
    }
    value = entry.value;
    return error;
  }

 private:
  struct Entry {
    bool is_made = false;
    Value value{};
  };
  std::mutex mutex_;
  Entry entries_[kMaxDevices];
};

}  // namespace lamina::kernels::cuda
