// Attention in phases on CUDA against ref/ and against the whole call, through the operators.
#include <gtest/gtest.h>

#include "device/gpu_graph.h"
#include "kernels/attention.h"
#include "kernels/cuda/testing/attention_step.h"
#include "kernels/ref/attention.h"

namespace lamina::kernels {
namespace {

// The lengths around a tile's, one without cached keys, one that is cut, and some without a query.
const std::vector<SequenceLengths> kDecoding = {
    {1, 1}, {2, 1}, {64, 1}, {65, 1}, {66, 1}, {700, 1}, {0, 0}, {1200, 1}, {40, 0}};
const std::vector<SequenceLengths> kMixed = {{1, 1}, {17, 17}, {700, 1}, {130, 3}, {64, 40}};

class CudaAttentionPhases : public CudaTest {
 protected:
  // Keys and values of the step's tokens are no numbers until the first phase is over.
  void expect_agrees(const AttentionForm& form, const std::vector<SequenceLengths>& sequences) {
    SCOPED_TRACE(form.name());
    const HostStep host(form, sequences);
    const DeviceStep device(host, stream());
    const DeviceTensor old_k(host.without_new_rows(host.k));
    const DeviceTensor old_v(host.without_new_rows(host.v));
    const DeviceTensor state = make_state(host);
    StepTables whole(host.limits(), stream());
    StepTables phased(host.limits(true), stream());
    RaggedAttentionArgs args = device.args(phased);
    args.state = state.view();
    ASSERT_EQ(device.append(whole, old_k, old_v).to_string(), "OK");
    ASSERT_TRUE(phased.update(host.batch(), {}, stream()).ok());
    args.phase = AttentionPhase::kCached;
    args.out = args.lse = TensorView();
    ASSERT_EQ(ragged_attention(args, stream()).to_string(), "OK");
    ASSERT_EQ(device.append(whole, device.k, device.v).to_string(), "OK");
    args.phase = AttentionPhase::kRest;
    args.out = device.out.view();
    args.lse = device.lse.view();
    ASSERT_EQ(ragged_attention(args, stream()).to_string(), "OK");
    const TestTensor out = device.out.to_host(stream());
    const TestTensor lse = device.lse.to_host(stream());

    ASSERT_TRUE(whole.update(host.batch(), {}, stream()).ok());
    ASSERT_EQ(ragged_attention(device.args(whole), stream()).to_string(), "OK");
    // Either may be off by as much.
    expect_near(out, device.out.to_host(stream()), 2 * magnitude(form.dtype), "out of the whole");
    expect_near(lse, device.lse.to_host(stream()), 200.0F, "lse of the whole");
    host.run_reference();
    expect_near(out, host.out, magnitude(form.dtype), "out");
    expect_near(lse, host.lse, 200.0F, "lse");
  }

  static DeviceTensor make_state(const HostStep& host) {
    const Shape rows = host.out.view().shape;
    TestTensor state(DType::kF32, rows.with(2, attention_state_dim(rows[2])));
    state.poison();
    return DeviceTensor(state);
  }
};

// Every one that scores can take, one after the other and all together.
std::vector<AttentionForm> every_form_of(const AttentionForm& form) {
  std::vector<AttentionForm> forms(7, form);
  forms[1].window = 100;
  forms[2].soft_cap = 3.0F;
  forms[3].alibi = true;
  forms[4].sinks = true;
  forms[5].some_blocks_elsewhere = true;
  forms[6].window = 65;
  forms[6].soft_cap = 3.0F;
  forms[6].alibi = true;
  forms[6].sinks = true;
  forms[6].out_dtype = form.dtype;
  return forms;
}

TEST_F(CudaAttentionPhases, OfDecoding) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int64_t dim : {64, 128}) {
      for (const int64_t num_kv_heads : {8, 1}) {
        const AttentionForm base = {
            .dtype = dtype, .num_kv_heads = num_kv_heads, .key_dim = dim, .value_dim = dim};
        for (const AttentionForm& form : every_form_of(base)) expect_agrees(form, kDecoding);
      }
    }
  }
}

TEST_F(CudaAttentionPhases, OfEverySizeOfHeadsAndBlocks) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t dim : {16, 80, 96, 192, 256}) {
      expect_agrees({.dtype = dtype, .key_dim = dim, .value_dim = dim}, kDecoding);
    }
    for (const int64_t block_size : {32, 64, 128}) {
      expect_agrees({.dtype = dtype, .block_size = block_size}, kDecoding);
    }
  }
}

TEST_F(CudaAttentionPhases, OfGroupsOfManyHeads) {
  for (const int64_t num_heads : {17, 71}) {
    expect_agrees({.num_heads = num_heads, .num_kv_heads = 1}, kDecoding);
  }
}

TEST_F(CudaAttentionPhases, OfWindowsThatLeaveNoCachedKey) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int32_t window : {1, 2, 64}) {
      expect_agrees({.dtype = dtype, .window = window, .sinks = true}, kDecoding);
    }
  }
}

TEST_F(CudaAttentionPhases, OverCodes) {
  for (const DType codes : kCodeDTypes) {
    for (const int64_t dim : {64, 128}) {
      for (const int64_t num_kv_heads : {8, 1}) {
        const AttentionForm base = {
            .codes = codes, .num_kv_heads = num_kv_heads, .key_dim = dim, .value_dim = dim};
        for (const AttentionForm& form : every_form_of(base)) expect_agrees(form, kDecoding);
      }
    }
    expect_agrees({.codes = codes, .key_dim = 80, .value_dim = 80}, kDecoding);
    expect_agrees({.dtype = DType::kF32, .codes = codes}, kDecoding);
  }
}

TEST_F(CudaAttentionPhases, OfValuesThatLieInTheirKeys) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    AttentionForm base = {
        .dtype = dtype, .num_kv_heads = 1, .key_dim = 576, .value_dim = 512, .latent = true};
    for (const AttentionForm& form : every_form_of(base)) expect_agrees(form, kDecoding);
    for (const int64_t num_heads : {1, 128}) {
      base.num_heads = num_heads;
      expect_agrees(base, kDecoding);
    }
  }
}

TEST_F(CudaAttentionPhases, OfStepsWithSeveralTokensOfASequence) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const AttentionForm& form : every_form_of({.dtype = dtype})) expect_agrees(form, kMixed);
  }
}

// A step of three tokens in rows for four: the graph of one is another's, with other lengths.
class CapturedPhases : public CudaAttentionPhases {
 protected:
  static constexpr int64_t kTokens = 3;

  static RaggedBatch first_of(const RaggedBatch& batch, std::span<const int32_t> context_len) {
    const auto table_size = static_cast<size_t>(kTokens * batch.max_blocks);
    return {batch.query_begin.first(kTokens + 1),
            context_len,
            batch.block_tables.first(table_size),
            batch.max_blocks};
  }
  static TestTensor first_rows(const TestTensor& tensor) {
    TestTensor rows(tensor.view().dtype, tensor.view().shape.with(0, kTokens));
    for (int64_t i = 0; i < rows.size(); ++i) rows.set(i, tensor.at(i));
    return rows;
  }

  void expect_result(const HostStep& host,
                     const DeviceStep& device,
                     const RaggedBatch& batch) const {
    RaggedAttentionArgs args = host.args();
    args.q = args.q.rows(0, kTokens);
    args.out = args.out.rows(0, kTokens);
    args.lse = args.lse.rows(0, kTokens);
    args.batch = batch;
    ref::ragged_attention(args);
    const TestTensor out = device.out.to_host(stream());
    const float largest = magnitude(host.form().dtype);
    expect_near(first_rows(out), first_rows(host.out), largest, "out");
    expect_near(first_rows(device.lse.to_host(stream())), first_rows(host.lse), 200.0F, "lse");
    EXPECT_TRUE(std::isnan(out.at(out.size() - 1))) << "a padded row was written";
  }

  void expect_graph_serves_other_lengths(const AttentionForm& form) {
    SCOPED_TRACE(form.name());
    const HostStep host(form, {{700, 1}, {3000, 1}, {300, 1}, {50, 1}});
    const DeviceStep device(host, stream());
    const DeviceTensor state = make_state(host);
    StepTables tables(host.limits(true), stream());
    ASSERT_EQ(device.append(tables, device.k, device.v).to_string(), "OK");
    host.run_reference();  // fills the cache
    const std::vector<int32_t> lengths = {700, 3000, 300};
    const RaggedBatch batch = first_of(host.batch(), lengths);
    RaggedAttentionArgs args = device.args(tables);
    args.state = state.view();
    const auto enqueue = [&]() -> Status {
      args.phase = AttentionPhase::kCached;
      args.out = args.lse = TensorView();
      LAMINA_RETURN_IF_ERROR(ragged_attention(args, stream()));
      args.phase = AttentionPhase::kRest;
      args.out = device.out.view();
      args.lse = device.lse.view();
      return ragged_attention(args, stream());
    };
    ASSERT_TRUE(tables.update(batch, {}, stream()).ok());
    const std::optional<uint64_t> shape = tables.launch_shape();
    ASSERT_TRUE(shape.has_value());
    ASSERT_EQ(enqueue().to_string(), "OK");
    Result<GpuGraph> graph = GpuGraph::capture(stream(), enqueue);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    ASSERT_TRUE(graph->launch(stream()).ok());
    expect_result(host, device, batch);
    // Where items are cut elsewhere a step may need another graph.
    int num_served = 0;
    for (const int32_t last : {1, 250, 290}) {
      const std::vector<int32_t> other_lengths = {650, 2800, last};
      const RaggedBatch other_batch = first_of(host.batch(), other_lengths);
      ASSERT_TRUE(tables.update(other_batch, {}, stream()).ok());
      if (tables.launch_shape() != shape) continue;
      ++num_served;
      ASSERT_TRUE(graph->launch(stream()).ok());
      expect_result(host, device, other_batch);
    }
    EXPECT_GT(num_served, 0);
  }
};

TEST_F(CapturedPhases, AGraphServesOtherLengths) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    expect_graph_serves_other_lengths({.dtype = dtype, .sinks = true});
    expect_graph_serves_other_lengths({.dtype = dtype, .window = 100});
    expect_graph_serves_other_lengths({.dtype = dtype,
                                       .num_heads = 16,
                                       .num_kv_heads = 1,
                                       .key_dim = 576,
                                       .value_dim = 512,
                                       .latent = true});
  }
}

TEST_F(CapturedPhases, ShapesTellSplitStepsFromOthers) {
  const AttentionForm form = {.num_heads = 1, .num_kv_heads = 1};
  const HostStep host(form, {{20, 2}, {20, 1}, {20, 1}});
  StepTables tables(host.limits(true), stream());
  const std::vector<int32_t> two_of_one = {0, 2, 2, 2};
  const std::vector<int32_t> one_of_each = {0, 0, 1, 2};
  RaggedBatch batch = host.batch();
  batch.query_begin = two_of_one;
  ASSERT_TRUE(tables.update(batch, {}, stream()).ok());
  const std::optional<uint64_t> shape = tables.launch_shape();
  batch.query_begin = one_of_each;
  ASSERT_TRUE(tables.update(batch, {}, stream()).ok());
  EXPECT_NE(tables.launch_shape(), shape);
}

TEST_F(CudaAttentionPhases, AreRefusedByTablesForWholeCalls) {
  const HostStep host({}, kDecoding);
  const DeviceStep device(host, stream());
  const DeviceTensor state = make_state(host);
  StepTables whole(host.limits(), stream());
  StepTables phased(host.limits(true), stream());
  RaggedAttentionArgs args = device.args(phased);
  EXPECT_EQ(ragged_attention(args, stream()).code(), StatusCode::kInvalidArgument);
  args.phase = AttentionPhase::kRest;
  args.state = state.view();
  args.batch.tables = &whole;
  EXPECT_EQ(ragged_attention(args, stream()).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lamina::kernels
