#include "transport/shm/shm_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/error.h"
#include "transport/shm/shm.h"

namespace lamina {
namespace {

bool exists(const std::string& name) {
  return static_cast<bool>(FileHandle(::shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0)));
}

TEST(ShmRegion, IsPrivateToItsUser) {
  const auto region = ShmRegion::create(1000);
  const FileHandle file(::shm_open(region->name().c_str(), O_RDWR | O_CLOEXEC, 0));
  struct stat info{};
  ASSERT_EQ(::fstat(file.get(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(info.st_size, 1000);
}

TEST(ShmRegion, IsSharedUntilRevoked) {
  const auto made = ShmRegion::create(4096);
  const auto mapped = ShmRegion::open(made->name(), 4096);
  made->data()[17] = std::byte{5};
  EXPECT_EQ(mapped->data()[17], std::byte{5});
  std::byte* const before = made->data();
  made->revoke();
  EXPECT_EQ(made->data(), before);
  EXPECT_EQ(made->data()[17], std::byte{0});
  mapped->data()[18] = std::byte{6};
  EXPECT_EQ(made->data()[18], std::byte{0});
}

TEST(ShmRegion, NameEndsWithItsMakerOrWhenThePeerHasIt) {
  auto made = ShmRegion::create(64);
  const std::string name = made->name();
  EXPECT_TRUE(exists(name));
  made.reset();
  EXPECT_FALSE(exists(name));

  made = ShmRegion::create(64);
  const std::string second = made->name();
  ShmRegion::open(second, 64)->unlink();
  EXPECT_FALSE(exists(second));
}

TEST(ShmRegion, OpensOnlyWhatItWouldMake) {
  const auto made = ShmRegion::create(64);
  EXPECT_THROW(ShmRegion::open(made->name(), 65), Error);
  EXPECT_TRUE(exists(made->name()));
  for (const char* name : {"", "/", "/lamina-", "/lamina-../../../../etc/passwd", "/other"}) {
    EXPECT_THROW(ShmRegion::open(name, 64), Error) << name;
  }
  EXPECT_THROW(ShmRegion::open("/lamina-00000000000000000000000000000000", 64), Error);
}

TEST(ShmRegion, RefusesMoreThanThereIs) {
  try {
    ShmRegion::create(size_t{1} << 50);
    FAIL() << "a petabyte was granted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kResourceExhausted);
  }
}

TEST(ShmRegion, KnowsWhetherItsMakerLives) {
  auto made = ShmRegion::create(64);
  const auto mapped = ShmRegion::open(made->name(), 64);
  EXPECT_TRUE(mapped->owner_lives());
  made.reset();
  EXPECT_FALSE(mapped->owner_lives());
}

TEST(ShmRegion, RemovesWhatTheDeadLeftAndNothingElse) {
  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(::pipe2(pipe_ends.data(), O_CLOEXEC), 0);
  const FileHandle reading(pipe_ends[0]);
  FileHandle writing(pipe_ends[1]);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto region = ShmRegion::create(64);
    const bool told = ::write(writing.get(), region->name().data(), region->name().size()) > 0;
    ::kill(::getpid(), told ? SIGKILL : SIGABRT);
  }
  std::array<char, 128> text{};
  writing.reset();
  const ssize_t got = ::read(reading.get(), text.data(), text.size());
  ASSERT_GT(got, 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const std::string left(text.data(), static_cast<size_t>(got));
  const auto living = ShmRegion::create(64);
  EXPECT_TRUE(exists(left));
  ShmRegion::remove_leftovers();
  EXPECT_FALSE(exists(left));
  EXPECT_TRUE(exists(living->name()));
}

TEST(ShmSetup, LeavesNoNameBehind) {
  const EndpointConfig a{.kind = TransportKind::kShm,
                         .self = {.id = 1, .epoch = 1},
                         .peer = {.id = 2, .epoch = 1},
                         .receive_slots = {8},
                         .send_slots = {}};
  const EndpointConfig b{.kind = TransportKind::kShm,
                         .self = {.id = 2, .epoch = 1},
                         .peer = {.id = 1, .epoch = 1},
                         .receive_slots = {},
                         .send_slots = {8}};
  const auto first = prepare_shm(a);
  const auto second = prepare_shm(b);
  const std::string first_name = first->blob().substr(first->blob().rfind(' ') + 1);
  const std::string second_name = second->blob().substr(second->blob().rfind(' ') + 1);
  EXPECT_TRUE(exists(first_name));
  const auto first_end = first->complete(second->blob(), Deadline::expired());
  const auto second_end = second->complete(first->blob(), Deadline::expired());
  EXPECT_FALSE(exists(first_name));
  EXPECT_FALSE(exists(second_name));
}

}  // namespace
}  // namespace lamina
