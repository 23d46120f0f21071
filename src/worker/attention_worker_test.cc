#include "worker/attention_worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "base/rng.h"
#include "kv/head_partition.h"
#include "wire/slots.h"
#include "worker/local_attention.h"
#include "worker/packing.h"
#include "worker/remote_attention.h"

namespace lamina {
namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kHeads = 6;
constexpr int32_t kKvHeads = 3;
constexpr int32_t kHeadDim = 8;
constexpr int32_t kMaxTokens = 16;
constexpr int32_t kBlocks = 12;

AttentionCoreConfig core_config(int32_t num_kv_heads) {
  AttentionCoreConfig config{.kv = {.num_layers = kLayers,
                                    .num_kv_heads = num_kv_heads,
                                    .head_dim = kHeadDim,
                                    .value_dim = kHeadDim,
                                    .block_size = 4,
                                    .dtype = DType::kF32},
                             .num_blocks = kBlocks,
                             .num_heads = num_kv_heads * kHeads / kKvHeads,
                             .max_sequences = 4,
                             .max_tokens = kMaxTokens,
                             .max_blocks_per_sequence = 8,
                             .num_micro_batches = 2,
                             .layers = {}};
  for (int32_t layer = 0; layer < kLayers; ++layer) config.layers.push_back({.scale = 0.35F});
  config.layers[1].window = 3;
  return config;
}

constexpr int32_t kMicroBatches = 2;

std::vector<KvTile> head_tiles(int32_t num_workers) {
  std::vector<KvTile> tiles;
  for (const HeadRange range : split_heads(kKvHeads, num_workers)) {
    tiles.push_back({.kv_heads = range, .blocks = {0, kBlocks}});
  }
  return tiles;
}

// Attention workers on threads, over loopback endpoints, with one RemoteAttention in front.
class Cluster {
 public:
  explicit Cluster(const std::vector<KvTile>& tiles, bool overlap = true, uint64_t epoch = 1) {
    std::vector<AttentionPeer> peers;
    for (const KvTile& tile : tiles) {
      const HeadRange range = tile.kv_heads;
      AttentionCoreConfig core = core_config(range.count());
      core.num_blocks = std::min(tile.blocks.end, kBlocks) - tile.blocks.begin;
      core.overlap = overlap;
      const wire::SlotGeometry geometry{.num_micro_batches = kMicroBatches,
                                        .max_tokens = kMaxTokens,
                                        .max_sequences = 4,
                                        .num_blocks = kBlocks,
                                        .num_heads = static_cast<uint32_t>(core.num_heads),
                                        .num_kv_heads = static_cast<uint32_t>(range.count()),
                                        .head_dim = kHeadDim,
                                        .value_dim = kHeadDim,
                                        .dtype = DType::kF32,
                                        .out_dtype = DType::kF32,
                                        .may_be_partial = tile.blocks.count() < kBlocks};
      EndpointConfig engine_side{.kind = TransportKind::kLoopback,
                                 .self = {1, epoch},
                                 .peer = {2, epoch},
                                 .receive_slots = wire::model_worker_slots(geometry),
                                 .send_slots = wire::attention_worker_slots(geometry)};
      EndpointConfig worker_side{.kind = TransportKind::kLoopback,
                                 .self = {2, epoch},
                                 .peer = {1, epoch},
                                 .receive_slots = engine_side.send_slots,
                                 .send_slots = engine_side.receive_slots,
                                 .listens = true};
      auto engine_pending = prepare_endpoint(engine_side);
      auto worker_pending = prepare_endpoint(worker_side);
      const std::string engine_blob = engine_pending->blob();
      const std::string worker_blob = worker_pending->blob();
      threads_.emplace_back([this, core, epoch, engine_blob, pending = std::move(worker_pending)] {
        const auto endpoint =
            pending->complete(engine_blob, Deadline::after(std::chrono::seconds(10)));
        ThreadPool pool(1);
        AttentionWorker worker(
            {.core = core, .epoch = epoch, .dtype = DType::kF32, .total_blocks = kBlocks},
            {endpoint.get()},
            StreamView(pool));
        static_cast<void>(worker.serve(should_stop_, WaitPolicy{}, std::chrono::milliseconds(5)));
      });
      peers.push_back({.name = "worker",
                       .kv_heads = range,
                       .blocks = tile.blocks,
                       .endpoint = engine_pending->complete(
                           worker_blob, Deadline::after(std::chrono::seconds(10)))});
    }
    remote_ = std::make_unique<RemoteAttention>(
        RemoteAttentionConfig{.epoch = epoch,
                              .num_layers = kLayers,
                              .num_heads = kHeads,
                              .num_kv_heads = kKvHeads,
                              .value_dim = kHeadDim,
                              .dtype = DType::kF32,
                              .block_size = 4,
                              .max_sequences = 4,
                              .max_tokens = kMaxTokens,
                              .rotation = {.num_micro_batches = kMicroBatches},
                              .reply_timeout = std::chrono::seconds(10)},
        std::move(peers),
        StreamView(pool_));
  }
  ~Cluster() {
    should_stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  RemoteAttention& remote() { return *remote_; }

 private:
  std::atomic<bool> should_stop_{false};
  std::vector<std::thread> threads_;
  ThreadPool pool_{1};
  std::unique_ptr<RemoteAttention> remote_;
};

std::vector<float> random_values(int64_t count, Rng& rng) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = 2.0F * rng.next_float() - 1.0F;
  return values;
}

// A few steps of two sequences: prefill of one, then both, decode, one leaves and its blocks move
// on.
std::vector<StepPlan> script() {
  std::vector<StepPlan> plans(4);
  plans[0].sequences = {
      {.slot = 0, .first_position = 0, .num_tokens = 6, .new_blocks = {3, 7}, .starts = true}};
  plans[1].sequences = {
      {.slot = 0, .first_position = 6, .num_tokens = 1},
      {.slot = 2, .first_position = 0, .num_tokens = 9, .new_blocks = {0, 1, 2}, .starts = true}};
  plans[2].sequences = {{.slot = 0, .first_position = 7, .num_tokens = 1},
                        {.slot = 2, .first_position = 9, .num_tokens = 1}};
  plans[3].released_slots = {0};
  plans[3].sequences = {
      {.slot = 2, .first_position = 10, .num_tokens = 1},
      {.slot = 1, .first_position = 0, .num_tokens = 2, .new_blocks = {7}, .starts = true}};
  return plans;
}

// q, k and v of one layer, and where its output goes.
struct LayerTensors {
  LayerTensors(int64_t num_tokens, Rng& rng)
      : tokens(num_tokens),
        q(random_values(tokens * kHeads * kHeadDim, rng)),
        k(random_values(tokens * kKvHeads * kHeadDim, rng)),
        v(random_values(tokens * kKvHeads * kHeadDim, rng)),
        out(q.size(), NAN) {}
  [[nodiscard]] TensorView view(std::vector<float>& values, int32_t heads) const {
    return {values.data(), DType::kF32, {tokens, heads, kHeadDim}};
  }
  void send_q(AttentionBackend& attention, int32_t batch, int32_t layer) {
    EXPECT_TRUE(attention.send_q(batch, layer, view(q, kHeads)).ok());
  }
  void send_kv(AttentionBackend& attention, int32_t batch, int32_t layer) {
    const Status sent = attention.send_kv(batch, layer, view(k, kKvHeads), view(v, kKvHeads));
    EXPECT_TRUE(sent.ok()) << sent.to_string();
  }
  void receive(AttentionBackend& attention, int32_t batch, int32_t layer) {
    const Status received = attention.receive(batch, layer, view(out, kHeads));
    EXPECT_TRUE(received.ok()) << received.to_string();
  }

  int64_t tokens;
  std::vector<float> q, k, v, out;
};

// Plays the script with the same random q, k, v and collects all outputs. `pause` lets q arrive
// alone.
std::vector<float> play(AttentionBackend& attention, Duration pause = {}) {
  Rng rng(5);
  std::vector<float> outputs;
  for (const StepPlan& plan : script()) {
    EXPECT_TRUE(attention.begin_step(0, {}, plan).ok());
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      LayerTensors tensors(plan.num_tokens(), rng);
      tensors.send_q(attention, 0, layer);
      std::this_thread::sleep_for(pause);
      tensors.send_kv(attention, 0, layer);
      tensors.receive(attention, 0, layer);
      outputs.insert(outputs.end(), tensors.out.begin(), tensors.out.end());
    }
  }
  return outputs;
}

TEST(AttentionWorker, OffloadedEqualsLocalBitForBit) {
  ThreadPool pool(1);
  LocalAttention local(core_config(kKvHeads), StreamView(pool));
  const std::vector<float> expected = play(local);
  for (const int32_t num_workers : {1, 2, 3}) {
    for (const bool overlap : {false, true}) {
      Cluster cluster(head_tiles(num_workers), overlap);
      const Duration pause = std::chrono::milliseconds(overlap ? 3 : 0);
      EXPECT_EQ(play(cluster.remote(), pause), expected) << num_workers << " workers";
    }
  }
}

TEST(AttentionWorker, SplitSequencesAgreeWithLocal) {
  ThreadPool pool(1);
  LocalAttention local(core_config(kKvHeads), StreamView(pool));
  const std::vector<float> expected = play(local);
  const std::vector<std::vector<KvTile>> partitions = {
      {{.kv_heads = {0, 3}, .blocks = {0, 3}}, {.kv_heads = {0, 3}, .blocks = {3, 12}}},
      {{.kv_heads = {0, 1}, .blocks = {0, 12}},
       {.kv_heads = {1, 2}, .blocks = {0, 2}},
       {.kv_heads = {1, 2}, .blocks = {2, 12}},
       {.kv_heads = {2, 3}, .blocks = {0, 1}},
       {.kv_heads = {2, 3}, .blocks = {1, 12}}}};
  for (const std::vector<KvTile>& tiles : partitions) {
    for (const bool overlap : {false, true}) {
      Cluster cluster(tiles, overlap);
      const std::vector<float> outputs = play(cluster.remote());
      ASSERT_EQ(outputs.size(), expected.size());
      for (size_t i = 0; i < outputs.size(); ++i) ASSERT_NEAR(outputs[i], expected[i], 1e-6) << i;
    }
  }
}

// Two micro-batches whose messages interleave, and whose blocks change hands, do not touch each
// other.
TEST(AttentionWorker, MicroBatchesInterleave) {
  std::vector<std::vector<StepPlan>> plans(2, std::vector<StepPlan>(3));
  for (int32_t batch = 0; batch < 2; ++batch) {
    auto& mine = plans[static_cast<size_t>(batch)];
    mine[0].sequences = {
        {.slot = batch, .num_tokens = 5, .new_blocks = {2 * batch, 2 * batch + 1}, .starts = true}};
    mine[1].sequences = {{.slot = batch, .first_position = 5, .num_tokens = 1}};
    // The slot's sequence leaves, and the next one gets the other micro-batch's old blocks.
    mine[2].released_slots = {batch};
    mine[2].sequences = {
        {.slot = batch + 2, .num_tokens = 2, .new_blocks = {4 + batch}, .starts = true}};
  }
  plans[1][2].sequences[0].new_blocks = {0};  // released by micro-batch 0's third plan
  const auto run = [&](AttentionBackend& attention) {
    Rng rng(9);
    std::vector<float> outputs;
    for (size_t step = 0; step < 3; ++step) {
      for (const int32_t batch : {0, 1}) {
        EXPECT_TRUE(attention.begin_step(batch, {}, plans[static_cast<size_t>(batch)][step]).ok());
      }
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        std::vector<LayerTensors> tensors;
        for (const auto& mine : plans) tensors.emplace_back(mine[step].num_tokens(), rng);
        for (const int32_t batch : {1, 0}) {
          tensors[static_cast<size_t>(batch)].send_q(attention, batch, layer);
        }
        for (const int32_t batch : {0, 1}) {
          tensors[static_cast<size_t>(batch)].send_kv(attention, batch, layer);
        }
        for (const int32_t batch : {1, 0}) {
          LayerTensors& mine = tensors[static_cast<size_t>(batch)];
          mine.receive(attention, batch, layer);
          outputs.insert(outputs.end(), mine.out.begin(), mine.out.end());
        }
      }
    }
    return outputs;
  };
  ThreadPool pool(1);
  LocalAttention local(core_config(kKvHeads), StreamView(pool));
  Cluster cluster(head_tiles(2));
  EXPECT_EQ(run(cluster.remote()), run(local));
}

TEST(AttentionWorker, RefusesAPlanThatBreaksItsTables) {
  std::vector<KvTile> tiles = head_tiles(2);
  for (KvTile& tile : tiles) ++tile.blocks.end;  // one more than the workers have
  Cluster cluster(tiles);
  StepPlan plan;
  plan.sequences = {{.slot = 0, .num_tokens = 1, .new_blocks = {kBlocks}, .starts = true}};
  ASSERT_TRUE(cluster.remote().begin_step(0, {}, plan).ok());
  std::vector<float> out(kHeads * kHeadDim);
  const Status status =
      cluster.remote().receive(0, 0, {out.data(), DType::kF32, {1, kHeads, kHeadDim}});
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("refused step 1"), std::string::npos) << status.to_string();
}

TEST(AttentionWorker, AbortEndsAWait) {
  Cluster cluster(head_tiles(2));
  StepPlan plan;
  plan.sequences = {
      {.slot = 0, .first_position = 0, .num_tokens = 1, .new_blocks = {0}, .starts = true}};
  ASSERT_TRUE(cluster.remote().begin_step(0, {}, plan).ok());  // and q never follows
  std::thread aborter([&] { cluster.remote().abort(); });
  std::vector<float> out(kHeads * kHeadDim);
  const Status status =
      cluster.remote().receive(0, 0, {out.data(), DType::kF32, {1, kHeads, kHeadDim}});
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  aborter.join();
}

TEST(Packing, RoundTripsStridedRows) {
  std::vector<float> wide(4 * 6 * 2);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<float>(i);
  const TensorView view(wide.data(), DType::kF32, {4, 6, 2});
  std::vector<std::byte> bytes(view.columns(2, 3).size_bytes());
  pack_rows(view.columns(2, 3), bytes);
  std::vector<float> copy(wide.size(), -1.0F);
  unpack_rows(bytes, TensorView(copy.data(), DType::kF32, {4, 6, 2}).columns(2, 3));
  for (size_t row = 0; row < 4; ++row) {
    for (size_t column = 0; column < 12; ++column) {
      const bool inside = column >= 4 && column < 10;
      EXPECT_EQ(copy[row * 12 + column], inside ? wide[row * 12 + column] : -1.0F);
    }
  }
}

}  // namespace
}  // namespace lamina
