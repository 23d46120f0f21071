#include "exec/slice_executor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "device/upload.h"
#include "kernels/experts.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/parts.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/step_tables.h"

namespace lamina {
namespace {

Shape with_rows(int64_t rows, const Shape& row_shape) {
  switch (row_shape.rank()) {
    case 0:
      return {rows};
    case 1:
      return {rows, row_shape[0]};
    case 2:
      return {rows, row_shape[0], row_shape[1]};
    default:
      break;
  }
  internal::check_failed(__FILE__, __LINE__, "row shapes have at most two extents");
}

}  // namespace

SliceExecutor::SliceExecutor(const SlicedModel& model,
                             const WeightStore& weights,
                             const StepLimits& limits,
                             int32_t num_micro_batches,
                             StreamView stream,
                             CollectivePort* collective)
    : model_(&model),
      limits_(limits),
      stream_(use_device_of(stream)),
      collective_(collective),
      plan_(plan_memory(model, limits)),
      scratch_(memory_of(stream.device().kind), plan_.scratch_bytes),
      micro_batches_(static_cast<size_t>(num_micro_batches)),
      weights_(model.graph.nodes().size()) {
  for (MicroBatch& batch : micro_batches_) {
    batch.carried = Buffer(memory_of(stream.device().kind), plan_.carried_bytes);
    if (is_on_host()) continue;
    const auto num_inputs =
        2 * static_cast<size_t>(limits.max_tokens) + static_cast<size_t>(limits.max_logits_rows);
    const size_t size_bytes = round_up(num_inputs * sizeof(int32_t), kUploadAlignment);
    batch.staged_inputs = Buffer(MemoryKind::kPinnedHost, size_bytes);
    batch.device_inputs = Buffer(MemoryKind::kCuda, size_bytes);
  }
  for (const Node& node : model.graph.nodes()) {
    if (node.kind != OpKind::kWeight) continue;
    WeightView& weight = weights_[static_cast<size_t>(node.id)];
    if (const std::optional<PackedMatrix> packed = weights.find_packed(node.name)) {
      weight = *packed;
    } else {
      weight = weights.get(node.name);
      LAMINA_CHECK(weight.tensor.dtype == node.type.dtype, node.name);
    }
    LAMINA_CHECK(weight.shape() == node.type.row_shape, node.name);
  }
}

Status SliceExecutor::begin(int32_t micro_batch, const StepInputs& inputs) {
  if (inputs.token_ids.size() != inputs.positions.size() ||
      inputs.token_ids.size() > static_cast<size_t>(limits_.max_tokens) ||
      inputs.logits_rows.size() > static_cast<size_t>(limits_.max_logits_rows)) {
    return invalid_argument(
        fmt::format("step of {} tokens, {} positions and {} logits rows, limits are {} and {}",
                    inputs.token_ids.size(),
                    inputs.positions.size(),
                    inputs.logits_rows.size(),
                    limits_.max_tokens,
                    limits_.max_logits_rows));
  }
  MicroBatch& batch = micro_batches_[static_cast<size_t>(micro_batch)];
  batch.inputs = inputs;
  set_rows(batch);
  if (!is_on_host()) stage_inputs(batch);
  return {};
}

// Where every token is sampled after, sequences decode.
void SliceExecutor::set_rows(MicroBatch& batch) const {
  batch.num_tokens = std::ssize(batch.inputs.token_ids);
  batch.num_logits_rows = std::ssize(batch.inputs.logits_rows);
  batch.is_padded = !is_on_host() && batch.num_tokens == batch.num_logits_rows &&
                    batch.num_tokens <= kernels::kMaxPaddedTokens;
  if (!batch.is_padded) return;
  batch.num_tokens = std::min<int64_t>(
      {kernels::padded_tokens(batch.num_tokens), limits_.max_tokens, limits_.max_logits_rows});
  batch.num_logits_rows = batch.num_tokens;
}

// The step before has ended on the device: its result was waited for.
void SliceExecutor::stage_inputs(MicroBatch& batch) {
  auto* end = reinterpret_cast<int32_t*>(batch.staged_inputs.data());
  const auto stage = [&end](std::span<const int32_t> values, int64_t num_rows) {
    std::fill(std::ranges::copy(values, end).out, end + num_rows, 0);
    end += num_rows;
  };
  stage(batch.inputs.token_ids, batch.num_tokens);
  stage(batch.inputs.positions, batch.num_tokens);
  stage(batch.inputs.logits_rows, batch.num_logits_rows);
  batch.has_new_inputs = true;
}

Status SliceExecutor::bring_inputs(const MicroBatch& batch) const {
  const int64_t num_inputs = 2 * batch.num_tokens + batch.num_logits_rows;
  const UploadPiece all = {
      .begin = 0, .end = static_cast<uint32_t>(static_cast<size_t>(num_inputs) * sizeof(int32_t))};
  return upload(
      batch.device_inputs.data(), batch.staged_inputs.data(), std::span(&all, 1), stream_);
}

TensorView SliceExecutor::input_view(const MicroBatch& batch, std::string_view name) const {
  const int32_t* on_host = batch.inputs.token_ids.data();
  int64_t place = 0;  // among the inputs
  int64_t num_rows = batch.num_tokens;
  if (name == "positions") {
    on_host = batch.inputs.positions.data();
    place = batch.num_tokens;
  } else if (name == "logits_rows") {
    on_host = batch.inputs.logits_rows.data();
    place = 2 * batch.num_tokens;
    num_rows = batch.num_logits_rows;
  } else {
    LAMINA_CHECK_EQ(name, "token_ids");
  }
  // Operators only read step inputs; TensorView has no const form.
  int32_t* data = is_on_host() ? const_cast<int32_t*>(on_host)
                               : reinterpret_cast<int32_t*>(batch.device_inputs.data()) + place;
  return {data, DType::kI32, {num_rows}};
}

Status SliceExecutor::run_slice(int32_t micro_batch, int32_t slice_idx, AttentionPort& port) {
  const SliceRun run = {micro_batch, slice_idx, slice_idx + 1};
  AttentionPort* const only = &port;
  return run_slices(std::span(&run, 1), std::span(&only, 1));
}

Status SliceExecutor::run_slices(std::span<const SliceRun> runs,
                                 std::span<AttentionPort* const> ports) {
  const std::optional<SliceGraphs::Key> key = whole_key(runs, ports);
  const auto enqueue = [&] { return run_in_turn(runs, ports); };
  LAMINA_RETURN_IF_ERROR(key ? graphs_.run(*key, stream_, enqueue) : enqueue());
  if (key) note_last(runs);
  for (const SliceRun& run : runs) {
    micro_batches_[static_cast<size_t>(run.micro_batch)].has_new_inputs = false;
  }
  return {};
}

// The slice that a replayed graph ran last.
void SliceExecutor::note_last(std::span<const SliceRun> runs) {
  const SliceRun* last = &runs.front();
  for (const SliceRun& run : runs) {
    if (run.last() >= last->last()) last = &run;
  }
  current_ = &micro_batches_[static_cast<size_t>(last->micro_batch)];
  slice_idx_ = last->last();
}

// Of a graph with attention's calls in it, if there may be one.
std::optional<SliceGraphs::Key> SliceExecutor::whole_key(
    std::span<const SliceRun> runs, std::span<AttentionPort* const> ports) const {
  SliceGraphs::Key key;
  for (size_t i = 0; i < runs.size(); ++i) {
    const MicroBatch& batch = micro_batches_[static_cast<size_t>(runs[i].micro_batch)];
    const std::optional<uint64_t> shape = ports[i]->launch_shape();
    if (!batch.is_padded || !shape) return std::nullopt;
    key.parts.push_back({.micro_batch = runs[i].micro_batch,
                         .begin = runs[i].begin,
                         .end = runs[i].end,
                         .stride = runs[i].stride,
                         .brings_inputs = batch.has_new_inputs,
                         .num_rows = batch.num_tokens,
                         .launch_shape = *shape});
  }
  return key;
}

Status SliceExecutor::run_in_turn(std::span<const SliceRun> runs,
                                  std::span<AttentionPort* const> ports) {
  for (const SliceRun& run : runs) {
    const MicroBatch& batch = micro_batches_[static_cast<size_t>(run.micro_batch)];
    if (batch.has_new_inputs) LAMINA_RETURN_IF_ERROR(bring_inputs(batch));
  }
  for (int32_t slice = 0; slice < num_slices(); ++slice) {
    for (size_t i = 0; i < runs.size(); ++i) {
      if (runs[i].has(slice)) LAMINA_RETURN_IF_ERROR(run_one(runs[i], slice, *ports[i]));
    }
  }
  return {};
}

Status SliceExecutor::run_one(const SliceRun& run, int32_t slice_idx, AttentionPort& port) {
  current_ = &micro_batches_[static_cast<size_t>(run.micro_batch)];
  slice_idx_ = slice_idx;
  const bool takes_turns = run.stride > 1;
  if (takes_turns && slice_idx > 0) {
    LAMINA_RETURN_IF_ERROR(
        port.receive_carried(slice_idx, carried(run.micro_batch, slice_idx - 1)));
  }
  const Slice& slice = model_->slices[static_cast<size_t>(slice_idx)];
  const bool only_enqueues = port.launch_shape().has_value();
  padding_is_sent_ = current_->is_padded && only_enqueues;
  LAMINA_RETURN_IF_ERROR(current_->is_padded && !only_enqueues
                             ? run_between_calls(run.micro_batch, slice.program, port)
                             : this->run(slice.program, port));
  if (!takes_turns || slice_idx + 1 == num_slices()) return {};
  return port.send_carried(slice_idx, carried(run.micro_batch, slice_idx));
}

// What lies between attention's calls is captured, but not they.
Status SliceExecutor::run_between_calls(int32_t micro_batch,
                                        std::span<const Instruction> program,
                                        AttentionPort& port) {
  SliceGraphs::Key key = {.parts = {{.micro_batch = micro_batch,
                                     .begin = slice_idx_,
                                     .end = slice_idx_ + 1,
                                     .num_rows = current_->num_tokens}}};
  for (size_t begin = 0; begin < program.size();) {
    size_t end = begin;
    while (end < program.size() && program[end].kind == InstructionKind::kCompute) ++end;
    if (end == begin) {
      LAMINA_RETURN_IF_ERROR(run(program.subspan(begin++, 1), port));
      continue;
    }
    key.first_instruction = begin;
    LAMINA_RETURN_IF_ERROR(
        graphs_.run(key, stream_, [&] { return run(program.subspan(begin, end - begin), port); }));
    begin = end;
  }
  return {};
}

Status SliceExecutor::run(std::span<const Instruction> instructions, AttentionPort& port) {
  for (const Instruction& instruction : instructions) {
    LAMINA_RETURN_IF_ERROR(run(instruction, port));
    port.send_unsent();
  }
  return {};
}

TensorView SliceExecutor::logits() const {
  LAMINA_CHECK_EQ(slice_idx_ + 1, num_slices());
  return view(model_->graph.output()).rows(0, std::ssize(current_->inputs.logits_rows));
}

std::vector<TensorView> SliceExecutor::carried(int32_t micro_batch, int32_t slice_idx) const {
  std::vector<TensorView> views;
  const Slice& slice = model_->slices[static_cast<size_t>(slice_idx)];
  views.reserve(slice.carried_out.size());
  for (const ValueId value : slice.carried_out) {
    views.push_back(view(micro_batches_[static_cast<size_t>(micro_batch)], slice_idx, value));
  }
  return views;
}

size_t SliceExecutor::max_carried_bytes() const {
  int64_t most = 0;
  for (const Slice& slice : model_->slices) {
    int64_t bytes = 0;
    for (const ValueId value : slice.carried_out) {
      const ValueType& type = model_->graph.type(value);
      const int64_t rows =
          type.rows == RowAxis::kTokens ? limits_.max_tokens : limits_.max_logits_rows;
      bytes += rows * type.row_bytes();
    }
    most = std::max(most, bytes);
  }
  return static_cast<size_t>(most);
}

size_t SliceExecutor::activation_bytes() const {
  return scratch_.size_bytes() + micro_batches_.size() * plan_.carried_bytes;
}

Status SliceExecutor::run(const Instruction& instruction, AttentionPort& port) {
  if (instruction.kind == InstructionKind::kCompute)
    return compute(model_->graph.node(instruction.node));
  const AttentionOp& attention = model_->attentions[static_cast<size_t>(instruction.attention_idx)];
  const auto rows_of = [this](ValueId value) {
    const TensorView all = view(value);
    return padding_is_sent_ ? all : all.rows(0, std::ssize(current_->inputs.token_ids));
  };
  switch (instruction.kind) {
    case InstructionKind::kSendQ:
      return port.send_q(instruction.attention_idx, rows_of(attention.q));
    case InstructionKind::kSendKv:
      return port.send_kv(instruction.attention_idx, rows_of(attention.k), rows_of(attention.v));
    case InstructionKind::kReceive:
      return port.receive(instruction.attention_idx, rows_of(attention.out));
    case InstructionKind::kCompute:
      break;
  }
  return internal_error("unknown instruction");
}

Status SliceExecutor::compute(const Node& node) {
  const TensorView out = view(node.id);
  const auto optional_input = [&](size_t index) {
    return index < node.inputs.size() ? input(node, index) : TensorView();
  };
  switch (node.kind) {
    case OpKind::kEmbedding: {
      const auto* shard = std::get_if<EmbeddingAttrs>(&node.attrs);
      if (shard == nullptr) {
        return kernels::embedding(weight(node, 0), input(node, 1), out, stream_);
      }
      return kernels::embedding_shard(
          input(node, 0), shard->first_id, input(node, 1), out, stream_);
    }
    case OpKind::kLinear:
      return kernels::linear(
          {.x = input(node, 0), .weight = weight(node, 1), .bias = optional_input(2), .out = out},
          stream_);
    case OpKind::kHeadLinear:
      return kernels::head_linear(input(node, 0), weight(node, 1), out, stream_);
    case OpKind::kExperts:
      return kernels::experts({.x = input(node, 0),
                               .routes = input(node, 1),
                               .gate_up = weight(node, 2),
                               .down = weight(node, 3),
                               .gate_up_bias = optional_input(4),
                               .down_bias = optional_input(5),
                               .out = out,
                               .attrs = std::get<GatedActivationAttrs>(node.attrs)},
                              stream_);
    case OpKind::kNorm:
      return kernels::norm({.x = input(node, 0),
                            .weight = input(node, 1),
                            .bias = optional_input(2),
                            .out = out,
                            .attrs = std::get<NormAttrs>(node.attrs)},
                           stream_);
    case OpKind::kAddNorm:
      return kernels::add_norm({.a = input(node, 0),
                                .b = input(node, 1),
                                .weight = input(node, 2),
                                .bias = optional_input(3),
                                .out = out,
                                .attrs = std::get<NormAttrs>(node.attrs)},
                               stream_);
    case OpKind::kAdd:
      return kernels::add(input(node, 0), input(node, 1), out, stream_);
    case OpKind::kMul:
      return kernels::mul(input(node, 0), input(node, 1), out, stream_);
    case OpKind::kScale:
      return kernels::scale(input(node, 0), std::get<ScaleAttrs>(node.attrs).factor, out, stream_);
    case OpKind::kSoftCap:
      return kernels::soft_cap(
          input(node, 0), std::get<SoftCapAttrs>(node.attrs).cap, out, stream_);
    case OpKind::kActivation:
      return kernels::activation(
          input(node, 0), std::get<ActivationAttrs>(node.attrs).activation, out, stream_);
    case OpKind::kGatedActivation:
      return kernels::gated_activation(
          input(node, 0), std::get<GatedActivationAttrs>(node.attrs), out, stream_);
    case OpKind::kRopeTable: {
      const auto& attrs = std::get<RopeTableAttrs>(node.attrs);
      return kernels::rope_table(input(node, 0), attrs.inv_freq, attrs.magnitude, out, stream_);
    }
    case OpKind::kRope: {
      const auto* attrs = std::get_if<RopeAttrs>(&node.attrs);
      const bool interleaved = attrs != nullptr && attrs->interleaved;
      return kernels::rope(input(node, 0), input(node, 1), interleaved, out, stream_);
    }
    case OpKind::kRoute:
      return kernels::route(
          input(node, 0), optional_input(1), std::get<RouteAttrs>(node.attrs), out, stream_);
    case OpKind::kConcat:
      return kernels::concat(input(node, 0), input(node, 1), out, stream_);
    case OpKind::kGatherRows:
      return kernels::gather_rows(input(node, 0), input(node, 1), out, stream_);
    case OpKind::kReshape:
    case OpKind::kColumns:
      return {};  // the same memory seen otherwise
    case OpKind::kAllReduce:
    case OpKind::kAllGather:
      return exchange(node, out);
    case OpKind::kInput:
    case OpKind::kWeight:
    case OpKind::kAttention:
      break;
  }
  return internal_error(fmt::format("'{}' is not an instruction of a slice", node.name));
}

Status SliceExecutor::exchange(const Node& node, TensorView out) {
  if (collective_ == nullptr) {
    return internal_error(fmt::format("'{}' needs a tensor-parallel group", node.name));
  }
  const TensorView x = input(node, 0);
  LAMINA_CHECK(x.is_contiguous(), node.name);
  LAMINA_RETURN_IF_ERROR(collective_->exchange({x.data, x.size_bytes()}));
  parts_.clear();
  for (const std::span<const std::byte> bytes : collective_->all()) {
    // Operators only read what others sent; TensorView has no const form.
    parts_.emplace_back(const_cast<std::byte*>(bytes.data()), x.dtype, x.shape);
  }
  return node.kind == OpKind::kAllReduce ? kernels::sum_parts(parts_, out, stream_)
                                         : kernels::join_columns(parts_, out, stream_);
}

TensorView SliceExecutor::view(const MicroBatch& batch, int32_t slice_idx, ValueId value) const {
  const Node& node = model_->graph.node(value);
  if (node.kind == OpKind::kWeight) return weights_[static_cast<size_t>(value)].tensor;
  if (node.kind == OpKind::kInput) return input_view(batch, node.name);
  const ValuePlace place = plan_.places[static_cast<size_t>(slice_idx)][static_cast<size_t>(value)];
  LAMINA_CHECK(place.region != ValueRegion::kNone, node.name);
  const Buffer& buffer = place.region == ValueRegion::kCarried ? batch.carried : scratch_;
  const int64_t rows =
      node.type.rows == RowAxis::kTokens ? batch.num_tokens : batch.num_logits_rows;
  TensorView seen{
      buffer.data() + place.offset, node.type.dtype, with_rows(rows, node.type.row_shape)};
  seen.row_stride = static_cast<int64_t>(place.row_stride_bytes / dtype_bytes(node.type.dtype));
  return seen;
}

}  // namespace lamina
