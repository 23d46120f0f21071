#include "device/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "device/buffer.h"
#include "device/device.h"

namespace lamina {
namespace {

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (const int num_threads : {1, 2, 3}) {
    ThreadPool pool(num_threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 100}) {
        std::vector<int> hits(static_cast<size_t>(count), 0);
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        EXPECT_EQ(std::count(hits.begin(), hits.end(), 1), count);
      }
    }
  }
}

TEST(ThreadPool, SurvivesManyJobsAndIdlePauses) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(10, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    if (round % 500 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let workers block
  }
  EXPECT_EQ(sum, 20000);
}

TEST(Buffer, IsZeroedAlignedAndMovable) {
  Buffer buffer(MemoryKind::kHost, 1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kBufferAlignment, 0U);
  EXPECT_EQ(buffer.data()[999], std::byte{0});
  const Buffer moved = std::move(buffer);
  EXPECT_EQ(moved.size_bytes(), 1000U);
  EXPECT_THROW(Buffer(MemoryKind::kHost, size_t{1} << 60), Error);
  EXPECT_THROW(Buffer(MemoryKind::kCuda, 1), Error);
}

TEST(Device, NamesRoundTrip) {
  for (const char* name : {"cpu", "cuda:0", "cuda:3"})
    EXPECT_EQ(device_name(*parse_device(name)), name);
  for (const char* name : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x"})
    EXPECT_FALSE(parse_device(name).ok());
}

}  // namespace
}  // namespace lamina
