// SlotRegion: the layout of a receive region that its owner polls and its peer writes: a header, a
// header per slot, the payloads. A view over memory that someone else owns (RegionMemory). The
// other side is hostile: an owner trusts nothing it reads here, and reads it once. docs/wire.md
// draws the layout.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "transport/blob.h"
#include "transport/kernel_wait.h"

namespace lamina {

inline constexpr uint64_t kRegionMagic = 0x4E474552414E4D4CULL;  // "LMNAREGN"
inline constexpr uint32_t kRegionVersion = 1;

struct RegionHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t num_slots;
  uint64_t total_bytes;
  Token token;                   // of the owner's blob
  std::atomic<uint32_t> closed;  // 1: the writer has left
  std::byte reserved[84];
};
static_assert(sizeof(RegionHeader) == 128);

// One cache line, so that slots do not disturb each other.
struct alignas(64) SlotHeader {
  std::atomic<uint64_t> seq;         // written last, by the peer
  std::atomic<uint64_t> size_bytes;  // of the payload; written before seq
  std::atomic<uint32_t> bell;        // futex word; changes with every event of the slot
  std::atomic<uint32_t> sleepers;    // 1: the owner is, or is about to be, asleep on the bell
};
static_assert(sizeof(SlotHeader) == 64);
static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<uint32_t>::is_always_lock_free);

class SlotRegion {
 public:
  // Bytes of a region of such slots.
  static size_t total_bytes(std::span<const size_t> capacities);

  // Views `memory` of total_bytes(capacities) bytes.
  SlotRegion(std::byte* memory, std::span<const size_t> capacities);

  // Owner, before anyone else can reach the memory, which is zero.
  void initialise(const Token& token);
  // Peer, after mapping. Throws Error: kInvalidArgument for memory that is no region of this
  // version and shape, kUnauthenticated for another token.
  void validate(const Token& token) const;

  [[nodiscard]] RegionHeader& header() const { return *header_; }
  [[nodiscard]] SlotHeader& slot(SlotIdx slot) const { return slots_[slot]; }
  [[nodiscard]] std::span<std::byte> payload(SlotIdx slot) const { return payloads_[slot]; }
  [[nodiscard]] size_t num_slots() const { return payloads_.size(); }

  // Writer: tells the owner that a slot changed; a system call only if it sleeps.
  void ring(SlotIdx slot) const;
  // Either side, any thread: ends every sleep on the region, under way or about to begin.
  void ring_all() const;
  // Owner: from now on ring() also ends a sleep on the slot's bell, which is returned. An event of
  // before may not: look for it after this call, then sleep, then end_sleep().
  [[nodiscard]] FutexWord begin_sleep(SlotIdx slot) const;
  void end_sleep(SlotIdx slot) const;

 private:
  size_t total_bytes_;
  RegionHeader* header_;
  SlotHeader* slots_;
  std::vector<std::span<std::byte>> payloads_;
};

// Owner of a region's memory, as a backend provides it.
class RegionMemory {
 public:
  virtual ~RegionMemory() = default;
  RegionMemory(const RegionMemory&) = delete;
  RegionMemory& operator=(const RegionMemory&) = delete;

  [[nodiscard]] virtual std::byte* data() const = 0;
  // Ends the sharing. data() is private, zero memory afterwards, perhaps elsewhere; earlier
  // pointers stay valid as long as this object.
  virtual void revoke() = 0;
  // Whether the process that made the region still runs: asked seldom, may be a system call.
  [[nodiscard]] virtual bool owner_lives() const = 0;

 protected:
  RegionMemory() = default;
};

}  // namespace lamina
