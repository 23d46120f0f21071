#include "convert/tensor_parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "convert/node_sets.h"

namespace lamina {
namespace {

// How a value lies on the ranks.
enum class Layout : uint8_t {
  kWhole,    // the same on every rank
  kShared,   // each rank has its part of axis 1
  kPartial,  // the value is the sum over ranks
};

struct Value {
  ValueId id = -1;  // in the rank's graph
  Layout layout = Layout::kWhole;
};

class Sharder {
 public:
  Sharder(const Graph& graph, int32_t rank, int32_t num_ranks)
      : graph_(graph),
        rank_(rank),
        num_ranks_(num_ranks),
        consumers_(consumer_lists(graph)),
        may_share_(graph.nodes().size()),
        values_(graph.nodes().size()) {
    check_heads();
    // Users stand after what they use, so theirs are known first.
    for (size_t i = graph.nodes().size(); i-- > 0;) may_share_[i] = all_users_take_part(i);
  }

  Graph shard() {
    const NodeSet live = live_nodes(graph_);
    for (const Node& node : graph_.nodes()) {
      if (!contains(live, node.id) || node.kind == OpKind::kWeight) continue;
      values_[static_cast<size_t>(node.id)] = place(node);
    }
    out_.set_output(whole(graph_.output()));
    out_.verify();
    return std::move(out_);
  }

 private:
  // ---- what could be shared ----

  void check_heads() const {
    for (const NodeId id : graph_.attention_nodes()) {
      const auto& attrs = std::get<AttentionAttrs>(graph_.node(id).attrs);
      const int32_t kv = attrs.num_kv_heads;
      const bool kv_fit = kv % num_ranks_ == 0 || num_ranks_ % kv == 0;
      if (attrs.num_heads % num_ranks_ == 0 && kv_fit) continue;
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("{} attention heads with {} KV heads cannot be shared by {} "
                              "tensor-parallel ranks",
                              attrs.num_heads,
                              kv,
                              num_ranks_));
    }
  }

  [[nodiscard]] bool divides(int64_t extent) const { return extent % num_ranks_ == 0; }
  [[nodiscard]] static int64_t extent_of(const ValueType& type) {
    return type.row_shape.rank() == 0 ? 1 : type.row_shape[0];
  }

  // Whether value `i` may lie in parts: each of its users can work on a part, or gathers it.
  [[nodiscard]] bool all_users_take_part(size_t i) const {
    const ValueType& type = graph_.nodes()[i].type;
    if (type.rows == RowAxis::kFixed || !divides(extent_of(type))) return false;
    const auto id = static_cast<ValueId>(i);
    return std::ranges::all_of(consumers_[i],
                               [&](NodeId user) { return takes_part(graph_.node(user), id); });
  }

  [[nodiscard]] bool takes_part(const Node& user, ValueId value) const {
    switch (user.kind) {
      case OpKind::kLinear:
      case OpKind::kHeadLinear:
        return true;  // as the product's inner axis, or as its heads
      case OpKind::kAttention: {
        const auto& attrs = std::get<AttentionAttrs>(user.attrs);
        return value == user.inputs[0] || divides(attrs.num_kv_heads);
      }
      case OpKind::kNorm:
        return user.type.row_shape.rank() == 2 && follows(user);
      case OpKind::kAdd:
      case OpKind::kScale:
      case OpKind::kSoftCap:
      case OpKind::kActivation:
      case OpKind::kConcat:
      case OpKind::kReshape:
      case OpKind::kGatherRows:
        return follows(user);
      case OpKind::kMul:
      case OpKind::kRope:
        return value == user.inputs[0] ? follows(user) : user.kind == OpKind::kMul && follows(user);
      default:
        return false;
    }
  }
  [[nodiscard]] bool follows(const Node& user) const {
    return user.id == graph_.output() || may_share_[static_cast<size_t>(user.id)];
  }

  // ---- the rank's graph ----

  [[nodiscard]] const Value& at(ValueId value) const { return values_[static_cast<size_t>(value)]; }
  [[nodiscard]] Layout layout(ValueId value) const { return at(value).layout; }

  // `value` in full.
  ValueId whole(ValueId value) {
    Value& made = values_[static_cast<size_t>(value)];
    if (made.layout == Layout::kPartial) {
      made = {out_.add(OpKind::kAllReduce, graph_.node(value).name, {made.id}), Layout::kWhole};
    }
    if (made.layout == Layout::kShared) {
      const ValueType& type = graph_.type(value);
      ValueId flat = made.id;
      if (type.row_shape.rank() != 1) {
        flat = out_.add_reshape("", flat, {out_.type(flat).row_shape.num_elements()});
      }
      flat =
          out_.add(OpKind::kAllGather, graph_.node(value).name, {flat}, AllGatherAttrs{num_ranks_});
      if (type.row_shape.rank() != 1) flat = out_.add_reshape("", flat, type.row_shape);
      made = {flat, Layout::kWhole};
    }
    return made.id;
  }

  // This rank's `count` indices of axis 1 from `begin` on of a whole value.
  ValueId columns(ValueId value, int64_t begin, int64_t count) {
    if (begin == 0 && count == extent_of(graph_.type(value))) return whole(value);
    return out_.add(OpKind::kColumns, "", {whole(value)}, ColumnsAttrs{begin, count});
  }

  // This rank's part of a value that divides.
  ValueId part(ValueId value) {
    if (layout(value) == Layout::kShared) return at(value).id;
    const int64_t count = extent_of(graph_.type(value)) / num_ranks_;
    return columns(value, rank_ * count, count);
  }

  // A weight as it is, or with another source and shape.
  ValueId weight(ValueId value) {
    const Node& node = graph_.node(value);
    return out_.add_weight(node.name, node.type, source_of(value));
  }
  // `what` tells parts of one weight apart.
  ValueId weight_part(ValueId value,
                      const Shape& shape,
                      WeightSource source,
                      std::string_view what = "") {
    const Node& node = graph_.node(value);
    ValueType type = node.type;
    type.row_shape = shape;
    return out_.add_weight(
        fmt::format("{}{}@{}/{}", node.name, what, rank_, num_ranks_), type, std::move(source));
  }
  [[nodiscard]] const WeightSource& source_of(ValueId value) const {
    return std::get<WeightAttrs>(graph_.node(value).attrs).source;
  }
  // This rank's indices of a weight's first axis.
  ValueId weight_rows(ValueId value) {
    const Shape& shape = graph_.type(value).row_shape;
    const WeightSource& source = source_of(value);
    const int64_t rows = num_rows(source) / num_ranks_;
    return weight_part(
        value, shape.with(0, shape[0] / num_ranks_), take_rows(source, {rank_ * rows, rows}));
  }
  // This rank's indices of a weight's last axis.
  ValueId weight_columns(ValueId value) {
    const Shape& shape = graph_.type(value).row_shape;
    const int64_t count = shape[-1] / num_ranks_;
    return weight_part(value,
                       shape.with(shape.rank() - 1, count),
                       take_columns(source_of(value), rank_ * count, count),
                       " columns");
  }

  Value place(const Node& node) {
    switch (node.kind) {
      case OpKind::kInput:
        return {out_.add_input(node.name, node.type), Layout::kWhole};
      case OpKind::kEmbedding:
        return place_embedding(node);
      case OpKind::kLinear:
        return place_linear(node);
      case OpKind::kHeadLinear:
        return place_head_linear(node);
      case OpKind::kExperts:
        return place_experts(node);
      case OpKind::kAttention:
        return place_attention(node);
      case OpKind::kNorm:
        return place_norm(node);
      case OpKind::kReshape:
        return place_reshape(node);
      case OpKind::kAdd:
      case OpKind::kMul:
      case OpKind::kConcat:
        return place_binary(node);
      case OpKind::kScale:
      case OpKind::kGatherRows:
        return place_linear_map(node);
      default:
        return place_by_first(node);
    }
  }

  Value place_embedding(const Node& node) {
    const int64_t num_rows = graph_.type(node.inputs[0]).row_shape[0];
    const ValueId ids = whole(node.inputs[1]);
    if (!divides(num_rows)) {
      return {out_.add(node.kind, node.name, {weight(node.inputs[0]), ids}), Layout::kWhole};
    }
    const EmbeddingAttrs attrs{rank_ * (num_rows / num_ranks_)};
    return {out_.add(node.kind, node.name, {weight_rows(node.inputs[0]), ids}, attrs),
            Layout::kPartial};
  }

  Value place_linear(const Node& node) {
    const ValueId x = node.inputs[0];
    const bool has_bias = node.inputs.size() > 2;
    if (layout(x) == Layout::kShared) {  // row-parallel: each rank a part of the sum
      std::vector<ValueId> inputs = {at(x).id, weight_columns(node.inputs[1])};
      if (has_bias && rank_ == 0) inputs.push_back(weight(node.inputs[2]));
      return {out_.add(node.kind, node.name, std::move(inputs), node.attrs), Layout::kPartial};
    }
    const bool shares = follows(node) && divides(node.type.row_shape[0]);
    std::vector<ValueId> inputs = {whole(x)};
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      inputs.push_back(shares ? weight_rows(node.inputs[i]) : weight(node.inputs[i]));
    }
    return {out_.add(node.kind, node.name, std::move(inputs), node.attrs),
            shares ? Layout::kShared : Layout::kWhole};
  }

  Value place_head_linear(const Node& node) {
    const bool shares = layout(node.inputs[0]) == Layout::kShared || may_share_[index(node)];
    const ValueId x = shares ? part(node.inputs[0]) : whole(node.inputs[0]);
    const ValueId lift = shares ? weight_rows(node.inputs[1]) : weight(node.inputs[1]);
    return {out_.add(node.kind, node.name, {x, lift}), shares ? Layout::kShared : Layout::kWhole};
  }

  // Every rank has a part of each expert's inner width.
  Value place_experts(const Node& node) {
    const int64_t num_experts = graph_.type(node.inputs[3]).row_shape[0];
    const int64_t width = graph_.type(node.inputs[3]).row_shape[2];
    std::vector<ValueId> inputs = {whole(node.inputs[0]), whole(node.inputs[1])};
    if (!divides(width)) {
      for (size_t i = 2; i < node.inputs.size(); ++i) inputs.push_back(weight(node.inputs[i]));
      return {out_.add(node.kind, node.name, std::move(inputs), node.attrs), Layout::kWhole};
    }
    const int64_t share = width / num_ranks_;
    const RowPattern rows{rank_ * share, share, width, 2 * num_experts};  // of gates and of ups
    const auto gate_up_part = [&](ValueId value, Shape shape) {
      return weight_part(value, shape.with(1, 2 * share), take_rows(source_of(value), rows));
    };
    inputs.push_back(gate_up_part(node.inputs[2], graph_.type(node.inputs[2]).row_shape));
    inputs.push_back(weight_columns(node.inputs[3]));
    if (node.inputs.size() > 4) {
      inputs.push_back(bias_part(node.inputs[4], rank_ * share, share, width));
      if (rank_ == 0) inputs.push_back(weight(node.inputs[5]));
    }
    return {out_.add(node.kind, node.name, std::move(inputs), node.attrs), Layout::kPartial};
  }

  // Of a bias [X, 2 I]: in each of the 2 X runs of `width` elements this rank's `count`.
  ValueId bias_part(ValueId value, int64_t begin, int64_t count, int64_t width) {
    const Shape& shape = graph_.type(value).row_shape;
    const WeightSource& source = source_of(value);
    WeightSource taken;
    if (num_columns(source) == 1) {
      taken = take_rows(source, {begin, count, width, 2 * shape[0]});
    } else {  // a row of the file is an expert: cut columns, and lay them one after the other
      for (int64_t x = 0; x < shape[0]; ++x) {
        const WeightSource row = take_rows(source, {x, 1});
        for (const int64_t first : {begin, width + begin}) {
          taken = stack(std::move(taken), take_columns(row, first, count));
        }
      }
    }
    return weight_part(value, {shape[0], 2 * count}, std::move(taken));
  }

  Value place_attention(const Node& node) {
    auto attrs = std::get<AttentionAttrs>(node.attrs);
    const int32_t kv_heads = attrs.num_kv_heads;
    const int32_t q_count = attrs.num_heads / num_ranks_;
    const int32_t kv_count = std::max(1, kv_heads / num_ranks_);
    const int32_t kv_begin = divides(kv_heads) ? rank_ * kv_count : rank_ / (num_ranks_ / kv_heads);
    const auto kv_part = [&](ValueId value) {
      return layout(value) == Layout::kShared ? at(value).id : columns(value, kv_begin, kv_count);
    };
    std::vector<ValueId> inputs = {part(node.inputs[0])};
    inputs.push_back(kv_part(node.inputs[1]));
    inputs.push_back(attrs.latent ? inputs[1] : kv_part(node.inputs[2]));
    if (node.inputs.size() > 3) inputs.push_back(weight_rows(node.inputs[3]));
    attrs.num_heads = q_count;
    attrs.num_kv_heads = kv_count;
    if (!attrs.alibi_slopes.empty()) {
      const auto begin = attrs.alibi_slopes.begin() + static_cast<std::ptrdiff_t>(rank_) * q_count;
      attrs.alibi_slopes = std::vector<float>(begin, begin + q_count);
    }
    return {out_.add(node.kind, node.name, std::move(inputs), attrs), Layout::kShared};
  }

  Value place_norm(const Node& node) {
    const bool shares =
        layout(node.inputs[0]) == Layout::kShared && node.type.row_shape.rank() == 2;
    std::vector<ValueId> inputs = {shares ? at(node.inputs[0]).id : whole(node.inputs[0])};
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const bool by_head = graph_.type(node.inputs[i]).row_shape.rank() == 2;
      inputs.push_back(shares && by_head ? weight_rows(node.inputs[i]) : weight(node.inputs[i]));
    }
    return {out_.add(node.kind, node.name, std::move(inputs), node.attrs),
            shares ? Layout::kShared : Layout::kWhole};
  }

  Value place_reshape(const Node& node) {
    const ValueId x = node.inputs[0];
    const bool shares = layout(x) == Layout::kShared && divides(node.type.row_shape[0]);
    if (!shares)
      return {out_.add_reshape(node.name, whole(x), node.type.row_shape), Layout::kWhole};
    const Shape shape = node.type.row_shape.with(0, node.type.row_shape[0] / num_ranks_);
    return {out_.add_reshape(node.name, at(x).id, shape), Layout::kShared};
  }

  // Sums of partial values stay partial, and so do products with a factor for each row.
  Value place_binary(const Node& node) {
    const Layout a = layout(node.inputs[0]);
    const Layout b = layout(node.inputs[1]);
    const bool is_row_factor =
        node.kind == OpKind::kMul && graph_.type(node.inputs[0]) != graph_.type(node.inputs[1]);
    Layout made = Layout::kWhole;
    if (node.kind == OpKind::kAdd && a == Layout::kPartial && b == Layout::kPartial) made = a;
    if (is_row_factor && a != Layout::kWhole) made = a;
    if (!is_row_factor && (a == Layout::kShared || b == Layout::kShared)) made = Layout::kShared;
    const auto operand = [&](size_t i) {
      const ValueId value = node.inputs[i];
      if (made == Layout::kWhole || (is_row_factor && i == 1)) return whole(value);
      return made == Layout::kShared ? part(value) : at(value).id;
    };
    const ValueId first = operand(0);
    return {out_.add(node.kind, node.name, {first, operand(1)}, node.attrs), made};
  }

  // A linear function of its first input, row by row: any layout stays.
  Value place_linear_map(const Node& node) {
    std::vector<ValueId> inputs = {at(node.inputs[0]).id};
    if (node.inputs.size() > 1) inputs.push_back(whole(node.inputs[1]));
    return {out_.add(node.kind, node.name, std::move(inputs), node.attrs), layout(node.inputs[0])};
  }

  // Shared if the first input is and the operator works on parts, whole otherwise.
  Value place_by_first(const Node& node) {
    const bool works_on_parts = node.kind == OpKind::kActivation || node.kind == OpKind::kSoftCap ||
                                node.kind == OpKind::kRope;
    const bool shares = works_on_parts && layout(node.inputs[0]) == Layout::kShared;
    std::vector<ValueId> inputs = {shares ? at(node.inputs[0]).id : whole(node.inputs[0])};
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      const ValueId value = node.inputs[i];
      const bool is_weight = graph_.node(value).kind == OpKind::kWeight;
      inputs.push_back(is_weight ? weight(value) : whole(value));
    }
    return {out_.add(node.kind, node.name, std::move(inputs), node.attrs),
            shares ? Layout::kShared : Layout::kWhole};
  }

  static size_t index(const Node& node) { return static_cast<size_t>(node.id); }

  const Graph& graph_;
  int32_t rank_;
  int32_t num_ranks_;
  std::vector<std::vector<NodeId>> consumers_;
  std::vector<bool> may_share_;
  Graph out_;
  std::vector<Value> values_;  // by value of `graph`
};

}  // namespace

Graph shard_graph(const Graph& graph, int32_t rank, int32_t num_ranks) {
  if (num_ranks < 1 || rank < 0 || rank >= num_ranks) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("rank {} of {} tensor-parallel ranks", rank, num_ranks));
  }
  if (num_ranks == 1) return graph;
  return Sharder(graph, rank, num_ranks).shard();
}

}  // namespace lamina
