#include "worker/staged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lamina {
namespace {

// Remembers what it was sent, and gives 1, 2, 3, ... as output.
class FakeAttention final : public AttentionBackend {
 public:
  Status begin_step(int32_t micro_batch,
                    const StepStart& /*start*/,
                    const StepPlan& /*plan*/) override {
    begun = micro_batch;
    return {};
  }
  Status send_q(int32_t /*micro_batch*/, int32_t /*idx*/, TensorView view) override {
    q = values_of(view);
    return {};
  }
  Status send_kv(int32_t /*micro_batch*/, int32_t /*idx*/, TensorView ks, TensorView vs) override {
    k = values_of(ks);
    v = values_of(vs);
    return {};
  }
  Status receive(int32_t /*micro_batch*/, int32_t /*idx*/, TensorView out) override {
    for (int64_t i = 0; i < out.shape.num_elements(); ++i) {
      out.as<float>()[i] = static_cast<float>(i + 1);
    }
    return failure;
  }
  Result<bool> has_output(int32_t /*micro_batch*/, int32_t /*idx*/) override { return true; }
  void add_awaited(int32_t /*micro_batch*/,
                   int32_t /*idx*/,
                   std::vector<AwaitedMessage>& /*awaited*/) const override {}

  int32_t begun = -1;
  std::vector<float> q, k, v;
  Status failure;

 private:
  static std::vector<float> values_of(const TensorView& view) {
    EXPECT_TRUE(view.empty() || view.is_contiguous());
    if (view.empty()) return {};
    return {view.as<float>(), view.as<float>() + view.shape.num_elements()};
  }
};

class StagedAttentionTest : public testing::Test {
 protected:
  // Two tokens with one head of two, in rows of `stride`.
  static TensorView tokens(std::vector<float>& values, int64_t stride) {
    TensorView view(values.data(), DType::kF32, {2, 1, 2});
    view.row_stride = stride;
    return view;
  }

  ThreadPool pool_{1};
  FakeAttention host_;
  StagedAttention staged_{host_, 4, StreamView(pool_)};
};

TEST_F(StagedAttentionTest, RowsOfAWiderMatrixArriveAsTheyAre) {
  std::vector<float> fused = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(staged_.begin_step(1, {}, {}).ok());
  ASSERT_TRUE(staged_.send_q(1, 0, tokens(fused, 3)).ok());
  EXPECT_EQ(host_.begun, 1);
  EXPECT_TRUE(host_.q.empty());  // it leaves with k and v
  std::vector<float> k = {7, 8, 9, 10};
  ASSERT_TRUE(staged_.send_kv(1, 0, tokens(k, 2), {}).ok());
  EXPECT_EQ(host_.q, (std::vector<float>{1, 2, 4, 5}));
  EXPECT_EQ(host_.k, k);
  EXPECT_TRUE(host_.v.empty());  // values that lie in the keys
}

TEST_F(StagedAttentionTest, OutputGoesWhereItIsWanted) {
  std::vector<float> out(6, 0.0F);
  ASSERT_TRUE(staged_.receive(0, 0, tokens(out, 3)).ok());
  EXPECT_EQ(out, (std::vector<float>{1, 2, 0, 3, 4, 0}));
}

TEST_F(StagedAttentionTest, ErrorsPassThrough) {
  host_.failure = Status(StatusCode::kUnavailable, "gone");
  std::vector<float> out(4, 0.0F);
  EXPECT_EQ(staged_.receive(0, 0, tokens(out, 2)).code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lamina
