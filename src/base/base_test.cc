#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/host.h"
#include "base/log.h"
#include "base/result.h"
#include "base/rng.h"

namespace lamina {
namespace {

Result<int> half_of(int value) {
  if (value % 2 != 0) return invalid_argument("odd");
  return value / 2;
}

Result<int> quarter_of(int value) {
  LAMINA_ASSIGN_OR_RETURN(const int half, half_of(value));
  LAMINA_ASSIGN_OR_RETURN(const int quarter, half_of(half));
  return quarter;
}

TEST(Result, PropagatesTheFirstError) {
  EXPECT_EQ(*quarter_of(8), 2);
  EXPECT_EQ(quarter_of(6).status().to_string(), "INVALID_ARGUMENT: odd");
  EXPECT_THROW(static_cast<void>(quarter_of(6).value_or_throw()), Error);
}

TEST(Result, CarriesMoveOnlyValues) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 7);
}

TEST(Check, PrintsBothValues) {
  EXPECT_DEATH(LAMINA_CHECK_EQ(1 + 1, 3), "1 \\+ 1 == 3 \\(2 vs. 3\\)");
}

TEST(Deadline, FollowsItsClock) {
  ManualClock clock;
  const Deadline deadline = Deadline::after(std::chrono::seconds(1), clock);
  EXPECT_FALSE(deadline.has_passed(clock));
  EXPECT_EQ(deadline.remaining(clock), std::chrono::seconds(1));
  clock.advance(std::chrono::seconds(2));
  EXPECT_TRUE(deadline.has_passed(clock));
  EXPECT_EQ(deadline.remaining(clock), Duration::zero());
  EXPECT_TRUE(Deadline::expired().has_passed(clock));
}

TEST(Rng, CanStartAtAnyDraw) {
  Rng whole(42);
  for (int i = 0; i < 5; ++i) whole.next_u64();
  Rng resumed(42, 5);
  EXPECT_EQ(whole.next_u64(), resumed.next_u64());
}

TEST(Rng, IsUniform) {
  Rng rng(1);
  double sum = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double draw = rng.next_double();
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    sum += draw;
    ASSERT_LT(rng.next_below(7), 7U);
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.01);  // standard deviation of the mean is 0.002
}

TEST(CheckedMath, RefusesOverflow) {
  EXPECT_EQ(checked_add<uint64_t>(1, 2), 3U);
  EXPECT_EQ(checked_add<uint64_t>(~0ULL, 1), std::nullopt);
  EXPECT_EQ(checked_mul<uint64_t>(1ULL << 63, 2), std::nullopt);
  EXPECT_EQ(round_up(17, 16), 32);
  EXPECT_EQ(ceil_div(17, 16), 2);
}

class FileTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("lamina_file_test_" + std::to_string(::getpid()));
};

TEST_F(FileTest, MapsAndReads) {
  std::ofstream(path_) << "hello";
  const MappedFile mapped(path_);
  EXPECT_EQ(mapped.bytes().size(), 5U);
  EXPECT_EQ(static_cast<char>(mapped.bytes()[4]), 'o');
  mapped.release_pages(0, 5);
  EXPECT_EQ(read_text_file(path_, 5), "hello");
  EXPECT_THROW(read_text_file(path_, 4), Error);
}

TEST_F(FileTest, RefusesWhatIsNotAFile) {
  EXPECT_THROW(MappedFile{path_}, Error);
  EXPECT_THROW(MappedFile{std::filesystem::temp_directory_path()}, Error);
  std::ofstream(path_).close();
  EXPECT_TRUE(MappedFile(path_).bytes().empty());
}

TEST(Log, RefusesUnknownLevels) {
  EXPECT_EQ(parse_log_level("warning"), LogLevel::kWarning);
  EXPECT_THROW(parse_log_level("loud"), Error);
}

TEST(Host, KnowsLoopback) {
  for (const char* host : {"127.0.0.1", "127.9.8.7", "::1", "localhost"}) {
    EXPECT_TRUE(is_loopback_host(host)) << host;
  }
  for (const char* host :
       {"0.0.0.0", "::", "128.0.0.1", "10.0.0.1", "localhost.evil", "127.0.0.1.evil", ""}) {
    EXPECT_FALSE(is_loopback_host(host)) << host;
  }
}

}  // namespace
}  // namespace lamina
