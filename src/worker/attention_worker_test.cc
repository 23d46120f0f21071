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
                             .layers = {}};
  for (int32_t layer = 0; layer < kLayers; ++layer) config.layers.push_back({.scale = 0.35F});
  config.layers[1].window = 3;
  return config;
}

// Attention workers on threads, over loopback endpoints, with one RemoteAttention in front.
class Cluster {
 public:
  Cluster(int32_t num_workers, uint64_t epoch) {
    std::vector<AttentionPeer> peers;
    for (const HeadRange range : split_heads(kKvHeads, num_workers)) {
      const AttentionCoreConfig core = core_config(range.count());
      const wire::SlotGeometry geometry{.max_tokens = kMaxTokens,
                                        .max_sequences = 4,
                                        .num_blocks = kBlocks,
                                        .num_heads = static_cast<uint32_t>(core.num_heads),
                                        .num_kv_heads = static_cast<uint32_t>(range.count()),
                                        .head_dim = kHeadDim,
                                        .value_dim = kHeadDim,
                                        .dtype = DType::kF32,
                                        .out_dtype = DType::kF32};
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
            {.core = core, .epoch = epoch, .dtype = DType::kF32}, *endpoint, StreamView(pool));
        static_cast<void>(worker.serve(should_stop_, WaitPolicy{}, std::chrono::milliseconds(5)));
      });
      peers.push_back({.name = "worker",
                       .kv_heads = range,
                       .endpoint = engine_pending->complete(
                           worker_blob, Deadline::after(std::chrono::seconds(10)))});
    }
    remote_ = std::make_unique<RemoteAttention>(
        RemoteAttentionConfig{.epoch = epoch,
                              .num_layers = kLayers,
                              .num_heads = kHeads,
                              .num_kv_heads = kKvHeads,
                              .dtype = DType::kF32,
                              .reply_timeout = std::chrono::seconds(10)},
        std::move(peers));
  }
  ~Cluster() {
    should_stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  RemoteAttention& remote() { return *remote_; }

 private:
  std::atomic<bool> should_stop_{false};
  std::vector<std::thread> threads_;
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

// Plays the script with the same random q, k, v and collects all outputs.
std::vector<float> play(AttentionBackend& attention) {
  Rng rng(5);
  std::vector<float> outputs;
  for (const StepPlan& plan : script()) {
    EXPECT_TRUE(attention.begin_step(plan).ok());
    const int64_t tokens = plan.num_tokens();
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<float> q = random_values(tokens * kHeads * kHeadDim, rng);
      std::vector<float> k = random_values(tokens * kKvHeads * kHeadDim, rng);
      std::vector<float> v = random_values(tokens * kKvHeads * kHeadDim, rng);
      std::vector<float> out(q.size(), NAN);
      EXPECT_TRUE(
          attention.send_q(layer, {q.data(), DType::kF32, {tokens, kHeads, kHeadDim}}).ok());
      const Status sent = attention.send_kv(layer,
                                            {k.data(), DType::kF32, {tokens, kKvHeads, kHeadDim}},
                                            {v.data(), DType::kF32, {tokens, kKvHeads, kHeadDim}});
      EXPECT_TRUE(sent.ok()) << sent.to_string();
      const Status received =
          attention.receive(layer, {out.data(), DType::kF32, {tokens, kHeads, kHeadDim}});
      EXPECT_TRUE(received.ok()) << received.to_string();
      outputs.insert(outputs.end(), out.begin(), out.end());
    }
  }
  return outputs;
}

TEST(AttentionWorker, OffloadedEqualsLocalBitForBit) {
  ThreadPool pool(1);
  LocalAttention local(core_config(kKvHeads), StreamView(pool));
  const std::vector<float> expected = play(local);
  for (const int32_t num_workers : {1, 2, 3}) {
    Cluster cluster(num_workers, 1);
    EXPECT_EQ(play(cluster.remote()), expected) << num_workers << " workers";
  }
}

TEST(AttentionWorker, RefusesAPlanThatBreaksItsTables) {
  Cluster cluster(2, 1);
  StepPlan plan;
  plan.sequences = {
      {.slot = 0, .first_position = 5, .num_tokens = 1}};  // no block holds position 5
  ASSERT_TRUE(cluster.remote().begin_step(plan).ok());
  std::vector<float> out(kHeads * kHeadDim);
  const Status status =
      cluster.remote().receive(0, {out.data(), DType::kF32, {1, kHeads, kHeadDim}});
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("refused step 1"), std::string::npos) << status.to_string();
}

TEST(AttentionWorker, AbortEndsAWait) {
  Cluster cluster(2, 1);
  StepPlan plan;
  plan.sequences = {
      {.slot = 0, .first_position = 0, .num_tokens = 1, .new_blocks = {0}, .starts = true}};
  ASSERT_TRUE(cluster.remote().begin_step(plan).ok());  // and q never follows
  std::thread aborter([&] { cluster.remote().abort(); });
  std::vector<float> out(kHeads * kHeadDim);
  const Status status =
      cluster.remote().receive(0, {out.data(), DType::kF32, {1, kHeads, kHeadDim}});
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
