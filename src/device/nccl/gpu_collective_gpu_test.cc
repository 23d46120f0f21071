// Gathers between two GPUs: called one by one, replayed from captured graphs, and aborted where a
// rank never comes.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <functional>
#include <future>
#include <thread>

#include "device/buffer.h"
#include "device/cuda/memory.h"
#include "device/gpu_collective.h"
#include "device/gpu_graph.h"
#include "device/gpu_stream.h"

namespace lamina {
namespace {

constexpr int32_t kNumRanks = 2;
constexpr size_t kCount = 5000;
constexpr size_t kPartBytes = kCount * sizeof(int32_t);
constexpr int32_t kRepeats = 100;

// What a rank has on its GPU.
class Rank {
 public:
  explicit Rank(int32_t rank)
      : rank_(rank),
        stream_({DeviceKind::kCuda, rank}),
        staged_(MemoryKind::kPinnedHost, kNumRanks * kPartBytes),
        mine_(MemoryKind::kCuda, (use_device_of(stream_.view()), kPartBytes)),
        all_(MemoryKind::kCuda, kNumRanks * kPartBytes) {}

  [[nodiscard]] StreamView stream() const { return stream_.view(); }
  void connect(std::unique_ptr<GpuCollective> collective) { collective_ = std::move(collective); }
  [[nodiscard]] GpuCollective& collective() const { return *collective_; }
  Status gather() { return collective_->all_gather(mine_.data(), all_.data(), kPartBytes); }

  static int32_t value(int32_t rank, int32_t turn, size_t idx) {
    return 1000000 * rank + 1000 * turn + static_cast<int32_t>(idx);
  }
  Status set(int32_t turn) {
    for (size_t i = 0; i < kCount; ++i) numbers()[i] = value(rank_, turn, i);
    LAMINA_RETURN_IF_ERROR(copy(mine_.data(), staged_.data(), kPartBytes, stream()));
    return synchronize(stream());
  }
  // How many of the numbers that the last gather brought are not what the ranks had set.
  Result<int32_t> count_wrong(int32_t turn) {
    LAMINA_RETURN_IF_ERROR(copy(staged_.data(), all_.data(), all_.size_bytes(), stream()));
    LAMINA_RETURN_IF_ERROR(synchronize(stream()));
    int32_t wrong = 0;
    for (int32_t rank = 0; rank < kNumRanks; ++rank) {
      for (size_t i = 0; i < kCount; ++i) {
        wrong += numbers()[static_cast<size_t>(rank) * kCount + i] != value(rank, turn, i) ? 1 : 0;
      }
    }
    return wrong;
  }

 private:
  [[nodiscard]] int32_t* numbers() const { return reinterpret_cast<int32_t*>(staged_.data()); }

  int32_t rank_;
  GpuStream stream_;
  Buffer staged_;
  Buffer mine_;
  Buffer all_;
  std::unique_ptr<GpuCollective> collective_;
};

class GpuCollectiveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() < kNumRanks) GTEST_SKIP() << "fewer than two GPUs";
    for (int32_t rank = 0; rank < kNumRanks; ++rank) {
      ranks_[static_cast<size_t>(rank)] = std::make_unique<Rank>(rank);
    }
    const std::array streams = {ranks_[0]->stream(), ranks_[1]->stream()};
    auto collectives = GpuCollective::connect(streams);
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      ranks_[rank]->connect(std::move(collectives[rank]));
    }
  }

  // In a thread for each rank.
  void on_all_ranks(const std::function<Status(Rank&)>& body) {
    std::array<Status, kNumRanks> statuses;
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        ranks_[rank]->stream().adopt_this_thread();
        statuses[rank] = body(*ranks_[rank]);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Status& status : statuses) EXPECT_TRUE(status.ok()) << status.to_string();
  }

  std::array<std::unique_ptr<Rank>, kNumRanks> ranks_;
};

Status expect_gathered(Rank& rank, int32_t turn) {
  LAMINA_ASSIGN_OR_RETURN(const int32_t wrong, rank.count_wrong(turn));
  EXPECT_EQ(wrong, 0) << "turn " << turn;
  return {};
}

TEST_F(GpuCollectiveTest, GathersPartsByRank) {
  on_all_ranks([](Rank& rank) -> Status {
    for (int32_t turn = 0; turn < kRepeats; ++turn) {
      LAMINA_RETURN_IF_ERROR(rank.set(turn));
      LAMINA_RETURN_IF_ERROR(rank.gather());
      LAMINA_RETURN_IF_ERROR(expect_gathered(rank, turn));
    }
    return {};
  });
}

TEST_F(GpuCollectiveTest, GathersInCapturedGraphs) {
  on_all_ranks([](Rank& rank) -> Status {
    LAMINA_RETURN_IF_ERROR(rank.gather());
    LAMINA_ASSIGN_OR_RETURN(const GpuGraph graph,
                            GpuGraph::capture(rank.stream(), [&] { return rank.gather(); }));
    for (int32_t turn = 0; turn < kRepeats; ++turn) {
      LAMINA_RETURN_IF_ERROR(rank.set(turn));
      LAMINA_RETURN_IF_ERROR(graph.launch(rank.stream()));
      LAMINA_RETURN_IF_ERROR(expect_gathered(rank, turn));
    }
    return {};
  });
}

// Whether a thread has told of its gather, which then waits on the GPU.
bool comes(std::promise<void>& enqueued) {
  constexpr auto kPatience = std::chrono::seconds(30);
  return enqueued.get_future().wait_for(kPatience) == std::future_status::ready;
}

// The thread that waits for the GPU is not the one that aborts.
TEST_F(GpuCollectiveTest, AbortEndsAGatherWhoseRankNeverComes) {
  std::promise<void> enqueued;
  std::thread waiting([this, &enqueued] {
    ranks_[0]->stream().adopt_this_thread();
    EXPECT_TRUE(ranks_[0]->gather().ok());
    EXPECT_TRUE(has_pending_work(ranks_[0]->stream()));
    enqueued.set_value();
    EXPECT_TRUE(synchronize(ranks_[0]->stream()).ok());
  });
  EXPECT_TRUE(comes(enqueued));
  for (const auto& rank : ranks_) rank->collective().abort();
  waiting.join();
  EXPECT_FALSE(has_pending_work(ranks_[0]->stream()));
  for (const auto& rank : ranks_) EXPECT_EQ(rank->gather().code(), StatusCode::kUnavailable);
}

// Graphs hold on to what they were captured with: the abort is over when they are gone.
TEST_F(GpuCollectiveTest, AbortEndsAGraphsGather) {
  on_all_ranks([](Rank& rank) { return rank.gather(); });
  std::promise<void> enqueued;
  std::thread waiting([this, &enqueued] {
    Rank& rank = *ranks_[0];
    rank.stream().adopt_this_thread();
    const Result<GpuGraph> graph = GpuGraph::capture(rank.stream(), [&] { return rank.gather(); });
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    EXPECT_TRUE(graph->launch(rank.stream()).ok());
    enqueued.set_value();
    EXPECT_TRUE(synchronize(rank.stream()).ok());
  });
  EXPECT_TRUE(comes(enqueued));
  for (const auto& rank : ranks_) rank->collective().abort();
  waiting.join();
}

}  // namespace
}  // namespace lamina
