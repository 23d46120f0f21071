#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace lamina {
namespace {

[[noreturn]] void throw_errno(const std::filesystem::path& path, const char* action) {
  const int error = errno;
  const StatusCode code = error == ENOENT   ? StatusCode::kNotFound
                          : error == EACCES ? StatusCode::kPermissionDenied
                                            : StatusCode::kInvalidArgument;
  throw Error(
      code,
      fmt::format(
          "cannot {} '{}': {}", action, path.string(), std::generic_category().message(error)));
}

struct OpenedFile {
  FileHandle handle;
  size_t size;
};

OpenedFile open_regular(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO by mistake must not hang.
  FileHandle handle(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!handle) throw_errno(path, "open");
  struct stat info{};
  if (::fstat(handle.get(), &info) != 0) throw_errno(path, "stat");
  if (!S_ISREG(info.st_mode)) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("'{}' is not a regular file", path.string()));
  }
  return {std::move(handle), static_cast<size_t>(info.st_size)};
}

}  // namespace

void FileTraits::destroy(Raw fd) noexcept {
  ::close(fd);
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const OpenedFile file = open_regular(path);
  size_ = file.size;
  if (size_ == 0) return;  // mmap refuses an empty range; an empty span is right
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.handle.get(), 0);
  if (mapped == MAP_FAILED) throw_errno(path, "map");
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release_pages(size_t offset, size_t size) const noexcept {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  if (offset >= size_) return;
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = std::min(size_, offset + size) / page * page;
  if (begin >= end) return;
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  const OpenedFile file = open_regular(path);
  if (file.size > max_bytes) {
    throw Error(
        StatusCode::kResourceExhausted,
        fmt::format(
            "'{}' has {} bytes, more than the {} allowed", path.string(), file.size, max_bytes));
  }
  std::string text(file.size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(file.handle.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno(path, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace lamina
