// ShmRegion: one named region of POSIX shared memory, mapped here. Its maker holds a file lock on
// it for as long as it lives, which tells the peer, and whoever cleans up, that it does: the kernel
// drops the lock with the process. A peer of the same user could truncate the region and so raise
// SIGBUS here; it could as well send us any other signal, so that is not defended against.
#pragma once

#include <memory>
#include <string>

#include "base/file.h"
#include "transport/slot_region.h"

namespace lamina {

class ShmRegion final : public RegionMemory {
 public:
  // A zeroed region of `size_bytes` under a random name, readable by this user alone. Its pages
  // exist: writing to them never fails later. Throws Error kResourceExhausted.
  static std::unique_ptr<ShmRegion> create(size_t size_bytes);
  // Maps a region that another process made. Throws Error: kInvalidArgument for a name that
  // create() does not make or another size, kUnavailable if it is not there.
  static std::unique_ptr<ShmRegion> open(const std::string& name, size_t size_bytes);
  // Unlinks regions whose makers died before a peer mapped them.
  static void remove_leftovers() noexcept;

  ShmRegion(const ShmRegion&) = delete;
  ShmRegion& operator=(const ShmRegion&) = delete;
  ~ShmRegion() override;

  [[nodiscard]] std::byte* data() const override { return data_; }
  void revoke() override;
  [[nodiscard]] bool owner_lives() const override;

  [[nodiscard]] const std::string& name() const { return name_; }
  // Takes the name away; mappings stay. Idempotent.
  void unlink() noexcept;

 private:
  ShmRegion(std::string name, FileHandle file, size_t size_bytes, bool is_maker);

  std::string name_;
  FileHandle file_;
  size_t size_bytes_;
  bool is_maker_;
  std::byte* data_ = nullptr;
};

}  // namespace lamina
