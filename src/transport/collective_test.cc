#include "transport/collective.h"

#include <thread>

#include "transport/endpoint_testing.h"

namespace lamina {
namespace {

using transport_testing::fill;
using transport_testing::is_filled;
using transport_testing::kPatience;

uint64_t seed_of(int32_t rank, int exchange) {
  return static_cast<uint64_t>(exchange) * 100 + static_cast<uint64_t>(rank);
}

// Bytes of an exchange: from nothing to the most there may be.
size_t size_of(int exchange) {
  return static_cast<size_t>(exchange) * 37 % 5000;
}

void exchange_many(Collective& group, int num_exchanges) {
  for (int i = 0; i < num_exchanges; ++i) {
    std::vector<std::byte> mine(size_of(i));
    fill(mine, seed_of(group.rank(), i));
    ASSERT_TRUE(group.exchange(mine).ok());
    ASSERT_EQ(group.all().size(), static_cast<size_t>(group.num_ranks()));
    for (int32_t rank = 0; rank < group.num_ranks(); ++rank) {
      const auto bytes = group.all()[static_cast<size_t>(rank)];
      ASSERT_EQ(bytes.size(), mine.size());
      ASSERT_TRUE(is_filled(bytes, seed_of(rank, i)));
    }
  }
}

TEST(CollectiveTest, ThreadsGetEachOthersBytes) {
  for (const int32_t num_ranks : {1, 2, 4}) {
    auto ranks = connect_threads(num_ranks, 5000, kPatience);
    std::vector<std::thread> threads;
    for (auto& rank : ranks) threads.emplace_back([&rank] { exchange_many(*rank, 300); });
    for (std::thread& thread : threads) thread.join();
  }
}

class CollectiveBackends : public testing::TestWithParam<TransportKind> {};
INSTANTIATE_TEST_SUITE_P(
    Backends,
    CollectiveBackends,
    testing::Values(TransportKind::kLoopback, TransportKind::kShm, TransportKind::kTcp),
    [](const auto& tested) { return std::string(transport_name(tested.param)); });

// The blobs of three ranks change hands; then each completes in its own thread, as processes do.
TEST_P(CollectiveBackends, RanksSetThemselvesUp) {
  constexpr int32_t kNumRanks = 3;
  std::vector<std::unique_ptr<PendingGroup>> pending;
  for (int32_t rank = 0; rank < kNumRanks; ++rank) {
    pending.push_back(std::make_unique<PendingGroup>(
        GroupConfig{.kind = GetParam(), .rank = rank, .num_ranks = kNumRanks, .max_bytes = 5000}));
  }
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < kNumRanks; ++rank) {
    std::vector<std::string> blobs(kNumRanks);
    for (int32_t from = 0; from < kNumRanks; ++from) {
      if (from != rank) {
        blobs[static_cast<size_t>(from)] = pending[static_cast<size_t>(from)]->blob_for(rank);
      }
    }
    threads.emplace_back([group = pending[static_cast<size_t>(rank)].get(), blobs] {
      const auto collective = group->complete(blobs, transport_testing::patience());
      exchange_many(*collective, 100);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CollectiveTest, AbortEndsAWait) {
  auto ranks = connect_threads(2, 64, kPatience);
  std::thread aborter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ranks[0]->abort();
  });
  EXPECT_EQ(ranks[0]->exchange({}).code(), StatusCode::kUnavailable);
  aborter.join();
  EXPECT_EQ(ranks[0]->exchange({}).code(), StatusCode::kUnavailable);
}

TEST(CollectiveTest, ASilentRankIsMissedInTime) {
  auto ranks = connect_threads(2, 64, std::chrono::milliseconds(30));
  EXPECT_EQ(ranks[0]->exchange({}).code(), StatusCode::kDeadlineExceeded);
}

TEST(CollectiveTest, AnotherSizeIsRefused) {
  auto ranks = connect_threads(2, 64, kPatience);
  const std::vector<std::byte> bytes(8);
  std::thread other([&] { static_cast<void>(ranks[1]->exchange(bytes)); });
  EXPECT_EQ(ranks[0]->exchange(std::span(bytes).first(4)).code(), StatusCode::kDataLoss);
  other.join();
}

}  // namespace
}  // namespace lamina
