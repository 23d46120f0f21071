#include "wire/slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"

namespace lamina::wire {
namespace {

// The attention worker's slots of a micro-batch; the model worker's two are numbered by parity.
constexpr uint32_t kPlanSlot = 0;
constexpr uint32_t kFirstQSlot = 1;
constexpr uint32_t kFirstKvSlot = 3;
constexpr uint32_t kNumWorkerSlots = 5;
constexpr uint32_t kNumOutSlots = 2;

// Sum of products, each size checked: the geometry comes over the control plane.
class SlotSize {
 public:
  SlotSize& add(std::initializer_list<size_t> factors) {
    std::optional<size_t> product = 1;
    for (const size_t factor : factors) {
      if (product) product = checked_mul(*product, factor);
    }
    if (product && bytes_) bytes_ = checked_add(*bytes_, *product);
    if (!product) bytes_.reset();
    return *this;
  }
  [[nodiscard]] size_t bytes() const {
    if (!bytes_) throw Error(StatusCode::kInvalidArgument, "slot geometry exceeds 64 bits");
    return *bytes_;
  }

 private:
  std::optional<size_t> bytes_ = sizeof(MessageHeader);
};

template <typename Size>
std::vector<Size> repeat(const std::vector<Size>& slots, uint32_t times) {
  std::vector<Size> all;
  all.reserve(slots.size() * times);
  for (uint32_t i = 0; i < times; ++i) all.insert(all.end(), slots.begin(), slots.end());
  return all;
}

}  // namespace

std::vector<size_t> attention_worker_slots(const SlotGeometry& geometry) {
  const size_t plan =
      SlotSize()
          .add({geometry.max_sequences, sizeof(SequenceEntry)})
          .add({3, sizeof(uint32_t)})  // num_padded_rows, num_following, num_released
          .add({geometry.max_sequences, sizeof(uint32_t)})
          .add({geometry.num_blocks, sizeof(int32_t)})
          .bytes();
  const size_t key_bytes = geometry.head_dim * dtype_bytes(geometry.dtype);
  const size_t value_bytes = geometry.latent ? 0 : geometry.value_dim * dtype_bytes(geometry.dtype);
  const size_t q = SlotSize().add({geometry.max_tokens, geometry.num_heads, key_bytes}).bytes();
  const size_t kv = SlotSize()
                        .add({geometry.max_tokens, geometry.num_kv_heads, key_bytes})
                        .add({geometry.max_tokens, geometry.num_kv_heads, value_bytes})
                        .bytes();
  return repeat(std::vector{plan, q, q, kv, kv}, geometry.num_micro_batches);
}

std::vector<size_t> model_worker_slots(const SlotGeometry& geometry) {
  const size_t head_bytes = geometry.value_dim * dtype_bytes(geometry.out_dtype);
  const size_t whole =
      SlotSize().add({geometry.max_tokens, geometry.num_heads, head_bytes}).bytes();
  const size_t partial_bytes = (size_t{geometry.value_dim} + 1) * sizeof(float);
  const size_t partial =
      SlotSize().add({geometry.max_tokens, geometry.num_heads, partial_bytes}).bytes();
  const size_t out = geometry.may_be_partial ? std::max(whole, partial) : whole;
  return repeat(std::vector{out, out}, geometry.num_micro_batches);
}

namespace {

constexpr uint32_t kNumWorkerDeviceSlots = 6;  // q, k and v, of both parities

// Of a matrix that devices send whole.
uint32_t device_slot_bytes(std::initializer_list<size_t> factors) {
  const size_t bytes = SlotSize().add(factors).bytes() - sizeof(MessageHeader);
  if (bytes > std::numeric_limits<uint32_t>::max()) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("{} bytes of a layer's tensor in a message between devices", bytes));
  }
  return static_cast<uint32_t>(bytes);
}

}  // namespace

std::vector<uint32_t> attention_device_slots(const SlotGeometry& geometry) {
  const size_t element_bytes = dtype_bytes(geometry.dtype);
  const size_t value_dim = geometry.latent ? 0 : geometry.value_dim;
  const uint32_t q = device_slot_bytes(
      {geometry.max_tokens, geometry.num_heads, geometry.head_dim, element_bytes});
  const uint32_t k = device_slot_bytes(
      {geometry.max_tokens, geometry.num_kv_heads, geometry.head_dim, element_bytes});
  const uint32_t v =
      device_slot_bytes({geometry.max_tokens, geometry.num_kv_heads, value_dim, element_bytes});
  return repeat(std::vector<uint32_t>{q, q, k, k, v, v}, geometry.num_micro_batches);
}

std::vector<uint32_t> model_device_slots(const SlotGeometry& geometry) {
  const size_t whole = geometry.value_dim * dtype_bytes(geometry.out_dtype);
  const size_t partial = (size_t{geometry.value_dim} + 1) * sizeof(float);
  const uint32_t out = device_slot_bytes(
      {geometry.max_tokens, geometry.num_heads, geometry.may_be_partial ? partial : whole});
  return repeat(std::vector<uint32_t>{out, out}, geometry.num_micro_batches);
}

uint32_t device_slot_of(DeviceMessage kind, uint32_t micro_batch, uint32_t layer) {
  if (kind == DeviceMessage::kOut) return micro_batch * kNumOutSlots + layer % 2;
  return micro_batch * kNumWorkerDeviceSlots + 2 * static_cast<uint32_t>(kind) + layer % 2;
}

uint32_t slot_of(MessageKind kind, uint32_t micro_batch, uint32_t layer) {
  const uint32_t first = micro_batch * kNumWorkerSlots;
  switch (kind) {
    case MessageKind::kPlan:
      return first + kPlanSlot;
    case MessageKind::kQ:
      return first + kFirstQSlot + layer % 2;
    case MessageKind::kKv:
      return first + kFirstKvSlot + layer % 2;
    case MessageKind::kOut:
      return micro_batch * kNumOutSlots + layer % 2;
    case MessageKind::kStep:
    case MessageKind::kResult:
    case MessageKind::kAck:
    case MessageKind::kCarried:
      break;
  }
  LAMINA_CHECK(false, "no message between a model worker and an attention worker");
  return 0;
}

uint64_t sequence_number(uint64_t step, uint32_t layer, uint32_t num_layers) {
  LAMINA_DCHECK(layer < num_layers);
  return step * num_layers + layer;
}

}  // namespace lamina::wire
