// UniqueHandle<Traits>: move-only owner of one C handle. Traits give Raw, kInvalid and destroy(Raw)
// noexcept; each handle type of the program is one line where it is wrapped (see FileHandle in
// base/file.h).
#pragma once

#include <utility>

namespace lamina {

template <typename Traits>
class UniqueHandle {
 public:
  using Raw = typename Traits::Raw;

  UniqueHandle() = default;
  explicit UniqueHandle(Raw raw) : raw_(raw) {}
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;
  UniqueHandle(UniqueHandle&& other) noexcept : raw_(other.release()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~UniqueHandle() { reset(); }

  [[nodiscard]] Raw get() const { return raw_; }
  explicit operator bool() const { return raw_ != Traits::kInvalid; }

  // Gives the handle up; the caller owns it.
  Raw release() { return std::exchange(raw_, Traits::kInvalid); }
  void reset(Raw raw = Traits::kInvalid) {
    const Raw old = std::exchange(raw_, raw);
    if (old != Traits::kInvalid) Traits::destroy(old);
  }

 private:
  Raw raw_ = Traits::kInvalid;
};

}  // namespace lamina
