// Files: owned descriptors, memory-mapped reading, whole small files. Used by model/, text/ and
// transport/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/unique_handle.h"

namespace lamina {

struct FileTraits {
  using Raw = int;
  static constexpr Raw kInvalid = -1;
  static void destroy(Raw fd) noexcept;
};
using FileHandle = UniqueHandle<FileTraits>;

// A read-only, private mapping of a whole regular file. Pages come in when touched; release_pages()
// lets them go again. Movable, immutable, safe to read from any thread.
class MappedFile {
 public:
  // Throws Error: kNotFound, kPermissionDenied, or kInvalidArgument for anything that is not a
  // regular file.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  // Drops the resident pages that lie wholly inside [offset, offset + size): they are read again if
  // touched again.
  void release_pages(size_t offset, size_t size) const noexcept;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file as text. Throws Error kNotFound if it cannot be opened, kResourceExhausted above
// `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes);

}  // namespace lamina
