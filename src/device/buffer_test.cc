#include "device/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "device/cuda/memory.h"

namespace lamina {
namespace {

TEST(Buffer, HostMemoryIsZeroedAndAligned) {
  const Buffer buffer(MemoryKind::kHost, 1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kBufferAlignment, 0U);
  EXPECT_TRUE(std::ranges::all_of(buffer.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(Buffer, MovesItsMemory) {
  Buffer from(MemoryKind::kHost, 64);
  std::byte* const data = from.data();
  const Buffer to = std::move(from);
  EXPECT_EQ(to.data(), data);
  EXPECT_EQ(from.data(), nullptr);  // NOLINT(bugprone-use-after-move): moved-from is empty
}

TEST(Buffer, GpuMemoryWithoutAGpuIsAnError) {
  if (cuda::num_devices() > 0) GTEST_SKIP() << "there is a GPU";
  for (const MemoryKind kind : {MemoryKind::kCuda, MemoryKind::kPinnedHost}) {
    try {
      const Buffer buffer(kind, 64);
      FAIL() << "allocated";
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == StatusCode::kUnimplemented ||
                  error.code() == StatusCode::kUnavailable)
          << error.what();
    }
  }
}

TEST(Stream, TheCpuCopiesAtOnce) {
  ThreadPool pool(1);
  const StreamView stream(pool);
  const int from = 7;
  int to = 0;
  ASSERT_TRUE(copy(&to, &from, sizeof(from), stream).ok());
  ASSERT_TRUE(synchronize(stream).ok());
  EXPECT_EQ(to, 7);
}

TEST(Stream, TheCpuCopiesRowsWithGaps) {
  ThreadPool pool(1);
  const std::array from = {1, 2, 0, 3, 4, 0};
  std::array<int, 8> to = {};
  const RowCopy rows = {.to = to.data(),
                        .to_stride = 4 * sizeof(int),
                        .from = from.data(),
                        .from_stride = 3 * sizeof(int),
                        .row_bytes = 2 * sizeof(int),
                        .num_rows = 2};
  ASSERT_TRUE(copy_rows(rows, StreamView(pool)).ok());
  EXPECT_EQ(to, (std::array{1, 2, 0, 0, 3, 4, 0, 0}));
}

}  // namespace
}  // namespace lamina
