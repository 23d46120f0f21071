// That a GPU's Meter measures; how fast the GPU is is not for a test to say.
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "planner/profile/meter.h"

namespace lamina::planner {
namespace {

TEST(GpuMeter, MeasuresProductsAndAttention) {
  if (cuda::num_devices() == 0) GTEST_SKIP() << "no GPU";
  const GpuStream stream(Device{DeviceKind::kCuda, 0});
  const auto meter =
      make_gpu_meter({.working_set_bytes = 64 << 20, .time = std::chrono::microseconds(200)},
                     stream.view(),
                     stream.view());
  ModelWork work;
  work.name = "tiny";
  work.num_layers = 3;
  work.num_heads = 32;
  work.num_kv_heads = 8;
  work.head_dim = work.value_dim = 128;
  work.products = {{4096, 4096, 6}, {1024, 4096, 6}};
  ProfileGrid grid = ProfileGrid::of(work, 64, 1024);
  grid.message_bytes.clear();
  Profile profile;
  measure(*meter, grid, profile);
  constexpr double kMost = 0.1;
  for (const ProductPoint& point : profile.products) {
    EXPECT_GT(point.seconds, 1e-7);
    EXPECT_LT(point.seconds, kMost);
  }
  for (const AttentionPoint& point : profile.attention) {
    EXPECT_GT(point.seconds, 1e-7);
    EXPECT_LT(point.seconds, kMost);
  }
  EXPECT_FALSE(ProfileFit(profile).has_round_trips());
  EXPECT_THROW(meter->round_trip_s({.bytes = 64}), Error);
  EXPECT_THROW(meter->slices(1), Error);
}

}  // namespace
}  // namespace lamina::planner
