#include "plan/rotation.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

TEST(Rotation, EverySliceIsOneReplicasNext) {
  for (int32_t n = 1; n <= 6; ++n) {
    for (int32_t count = 1; count <= 5; ++count) {
      const Rotation rotation{n, count};
      for (int32_t slice = 0; slice < 20; ++slice) {
        const int32_t replica = rotation.replica_of(/*first=*/1 % count, slice);
        EXPECT_EQ(rotation.next_slice(replica, 1 % count, slice), slice);
        EXPECT_EQ(rotation.next_slice(replica, 1 % count, slice + 1), slice + rotation.stride());
        EXPECT_EQ(rotation.replica_after(replica), rotation.replica_of(1 % count, slice + 1));
        EXPECT_EQ(rotation.replica_before(rotation.replica_after(replica)), replica);
      }
    }
  }
}

TEST(Rotation, ReplicasMayHaveNoSliceOfAStep) {
  const Rotation rotation{2, 2};
  EXPECT_EQ(rotation.stride(), 1);
  EXPECT_EQ(rotation.next_slice(/*replica=*/0, /*first=*/1, /*from=*/0), std::nullopt);
}

}  // namespace
}  // namespace lamina
