#include "transport/slot_region.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

#include "base/checked_math.h"
#include "base/error.h"
#include "transport/slot_memory.h"

namespace lamina {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "the kernel sees a plain word");

// Not FUTEX_PRIVATE_FLAG: the word is shared between processes.
void futex_wake(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// True on timeout.
bool futex_wait(std::atomic<uint32_t>& word, uint32_t expected, Duration at_most) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(at_most);
  const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (at_most - seconds).count()};
  return ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &timeout, nullptr, 0) != 0 &&
         errno == ETIMEDOUT;
}

}  // namespace

size_t SlotRegion::total_bytes(std::span<const size_t> capacities) {
  size_t total = sizeof(RegionHeader) + capacities.size() * sizeof(SlotHeader);
  for (const size_t capacity : capacities) total += round_up(capacity, kSlotAlignment);
  return total;
}

SlotRegion::SlotRegion(std::byte* memory, std::span<const size_t> capacities)
    : total_bytes_(total_bytes(capacities)),
      header_(reinterpret_cast<RegionHeader*>(memory)),
      slots_(reinterpret_cast<SlotHeader*>(memory + sizeof(RegionHeader))) {
  std::byte* next = memory + sizeof(RegionHeader) + capacities.size() * sizeof(SlotHeader);
  for (const size_t capacity : capacities) {
    payloads_.emplace_back(next, capacity);
    next += round_up(capacity, kSlotAlignment);
  }
}

void SlotRegion::initialise(const Token& token) {
  header_->magic = kRegionMagic;
  header_->version = kRegionVersion;
  header_->num_slots = static_cast<uint32_t>(num_slots());
  header_->total_bytes = total_bytes_;
  header_->token = token;
}

void SlotRegion::validate(const Token& token) const {
  if (header_->magic != kRegionMagic || header_->version != kRegionVersion) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("not a slot region of version {}", kRegionVersion));
  }
  if (header_->num_slots != num_slots() || header_->total_bytes != total_bytes_) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("region has {} slots in {} bytes, expected {} in {}",
                            header_->num_slots,
                            header_->total_bytes,
                            num_slots(),
                            total_bytes_));
  }
  if (!equal_constant_time(header_->token, token)) {
    throw Error(StatusCode::kUnauthenticated, "region carries another token than its blob");
  }
}

// The owner stores `sleepers` and then compares the bell (in the kernel); the writer changes the
// bell and then loads `sleepers`: in a total order one of them sees the other, so no wake is lost.
void SlotRegion::ring(SlotIdx slot) const {
  SlotHeader& header = slots_[slot];
  header.bell.fetch_add(1, std::memory_order_seq_cst);
  if (header.sleepers.load(std::memory_order_seq_cst) != 0) futex_wake(header.bell);
}

void SlotRegion::ring_all() const {
  for (SlotIdx slot = 0; slot < num_slots(); ++slot) {
    slots_[slot].bell.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(slots_[slot].bell);
  }
}

bool SlotRegion::sleep(SlotIdx slot, uint32_t bell, Duration at_most) const {
  SlotHeader& header = slots_[slot];
  header.sleepers.store(1, std::memory_order_seq_cst);
  const bool timed_out = futex_wait(header.bell, bell, at_most);
  header.sleepers.store(0, std::memory_order_relaxed);
  return timed_out;
}

}  // namespace lamina
