#include "transport/shm/shm_region.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/check.h"
#include "base/error.h"

namespace lamina {
namespace {

constexpr std::string_view kNamePrefix = "/lamina-";
constexpr size_t kNameBytes = kNamePrefix.size() + 2 * sizeof(Token);
constexpr const char* kShmFolder = "/dev/shm";
constexpr int kMaxEntriesSwept = 4096;
constexpr int kMaxCreateAttempts = 16;

[[noreturn]] void throw_errno(StatusCode code, const char* action, const std::string& name) {
  throw Error(code,
              fmt::format("cannot {} shared memory '{}': {}",
                          action,
                          name,
                          std::generic_category().message(errno)));
}

// Only names of our own making are opened or unlinked, whatever a blob says.
bool is_region_name(std::string_view name) {
  return name.size() == kNameBytes && name.starts_with(kNamePrefix) &&
         name.find_first_not_of("0123456789abcdef", kNamePrefix.size()) == std::string_view::npos;
}

bool try_lock(int fd, int operation) {
  while (::flock(fd, operation) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

// Someone who cleans up may have seen the region before its lock was taken.
bool is_linked(int fd) {
  struct stat info{};
  return ::fstat(fd, &info) == 0 && info.st_nlink > 0;
}

struct NamedFile {
  std::string name;
  FileHandle file;
};

NamedFile create_locked() {
  for (int attempt = 0; attempt < kMaxCreateAttempts; ++attempt) {
    std::string name = std::string(kNamePrefix) + to_hex(random_token());
    FileHandle file(::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) {
      if (errno == EEXIST) continue;
      throw_errno(StatusCode::kResourceExhausted, "create", name);
    }
    if (try_lock(file.get(), LOCK_EX) && is_linked(file.get())) {
      return {std::move(name), std::move(file)};
    }
    ::shm_unlink(name.c_str());
  }
  throw Error(StatusCode::kResourceExhausted, "cannot create a shared memory region");
}

void remove_if_abandoned(const std::string& name) {
  const FileHandle file(::shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0));
  if (file && try_lock(file.get(), LOCK_EX | LOCK_NB)) ::shm_unlink(name.c_str());
}

}  // namespace

ShmRegion::ShmRegion(std::string name, FileHandle file, size_t size_bytes, bool is_maker)
    : name_(std::move(name)), file_(std::move(file)), size_bytes_(size_bytes), is_maker_(is_maker) {
  void* mapped = ::mmap(
      nullptr, size_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file_.get(), 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    if (is_maker_) ::shm_unlink(name_.c_str());
    errno = error;
    throw_errno(StatusCode::kResourceExhausted, "map", name_);
  }
  data_ = static_cast<std::byte*>(mapped);
}

std::unique_ptr<ShmRegion> ShmRegion::create(size_t size_bytes) {
  NamedFile named = create_locked();
  // Not ftruncate alone: pages that do not exist until written end in SIGBUS when memory is short.
  int error = EINTR;
  while (error == EINTR) {
    error = ::posix_fallocate(named.file.get(), 0, static_cast<off_t>(size_bytes));
  }
  if (error != 0) {
    ::shm_unlink(named.name.c_str());
    throw Error(StatusCode::kResourceExhausted,
                fmt::format("cannot reserve {} bytes of shared memory: {}; enlarge {}",
                            size_bytes,
                            std::generic_category().message(error),
                            kShmFolder));
  }
  return std::unique_ptr<ShmRegion>(
      new ShmRegion(std::move(named.name), std::move(named.file), size_bytes, true));
}

std::unique_ptr<ShmRegion> ShmRegion::open(const std::string& name, size_t size_bytes) {
  if (!is_region_name(name)) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("'{}' names no slot region", name));
  }
  FileHandle file(::shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0));
  if (!file) throw_errno(StatusCode::kUnavailable, "open", name);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) throw_errno(StatusCode::kUnavailable, "stat", name);
  if (!S_ISREG(info.st_mode) || static_cast<size_t>(info.st_size) != size_bytes) {
    throw Error(
        StatusCode::kInvalidArgument,
        fmt::format("region '{}' has {} bytes, expected {}", name, info.st_size, size_bytes));
  }
  return std::unique_ptr<ShmRegion>(new ShmRegion(name, std::move(file), size_bytes, false));
}

void ShmRegion::remove_leftovers() noexcept {
  std::error_code error;  // an error ends the sweep
  std::filesystem::directory_iterator entry(kShmFolder, error);
  const std::filesystem::directory_iterator end;
  for (int i = 0; i < kMaxEntriesSwept && !error && entry != end; ++i, entry.increment(error)) {
    const std::string name = "/" + entry->path().filename().string();
    if (is_region_name(name)) remove_if_abandoned(name);
  }
}

ShmRegion::~ShmRegion() {
  ::munmap(data_, size_bytes_);
  if (is_maker_) unlink();
}

// In place, so that pointers into the region stay valid and lead nowhere.
void ShmRegion::revoke() {
  void* mapped = ::mmap(data_,
                        size_bytes_,
                        PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
                        -1,
                        0);
  LAMINA_CHECK(mapped == data_, "cannot replace a mapping by private memory");
  if (is_maker_) unlink();
  file_.reset();  // of ours: the lock goes, and the peer notices
}

bool ShmRegion::owner_lives() const {
  if (is_maker_ || !file_) return true;
  if (!try_lock(file_.get(), LOCK_SH | LOCK_NB)) return true;
  try_lock(file_.get(), LOCK_UN);
  return false;
}

void ShmRegion::unlink() noexcept {
  if (!name_.empty()) ::shm_unlink(name_.c_str());
  name_.clear();
}

}  // namespace lamina
