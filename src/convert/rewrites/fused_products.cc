#include "convert/rewrites/fused_products.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "convert/node_sets.h"
#include "convert/rewrites/graph_copy.h"
#include "convert/slicer.h"

namespace lamina {
namespace {

// What a slice needs a product for, in the order of need.
enum class Need : uint8_t { kQuery, kKeyValue, kRest };

// Products that may be one.
struct Family {
  ValueId input = -1;
  int32_t slice = -1;
  bool has_bias = false;
  DType out_dtype = DType::kF32;

  friend auto operator<=>(const Family&, const Family&) = default;
};

using Group = std::vector<NodeId>;  // products to fuse, in the order of their columns

class Grouping {
 public:
  Grouping(const Graph& graph, const ProjectionRates& rates, const ProjectionWorkload& workload)
      : graph_(graph),
        rates_(rates),
        workload_(workload),
        attentions_(graph.attention_nodes()),
        slices_(slice_numbers(graph)),
        uses_(use_counts(graph)),
        contiguous_(contiguous_values(graph)),
        need_(graph.nodes().size(), Need::kRest) {
    for (size_t k = 0; k < attentions_.size(); ++k) mark_needs(static_cast<int32_t>(k));
    std::map<Family, std::map<Need, Group>> families;
    for (const Node& node : graph.nodes()) {
      if (!may_fuse(node)) continue;
      families[family_of(node)][need_[static_cast<size_t>(node.id)]].push_back(node.id);
    }
    for (auto& [family, by_need] : families) add_groups(family, by_need);
  }

  [[nodiscard]] const std::vector<Group>& groups() const { return groups_; }
  std::vector<ProjectionDecision> take_decisions() { return std::move(decisions_); }

 private:
  [[nodiscard]] int32_t slice(NodeId node) const { return slices_[static_cast<size_t>(node)]; }

  // Slice k computes for the k of its attention what its q needs, and then what k and v need.
  void mark_needs(int32_t k) {
    const std::vector<ValueId>& inputs = graph_.node(attentions_[static_cast<size_t>(k)]).inputs;
    mark({inputs[1], inputs[2]}, k, Need::kKeyValue);
    mark({inputs[0]}, k, Need::kQuery);
  }
  void mark(std::vector<ValueId> values, int32_t k, Need need) {
    while (!values.empty()) {
      const Node& node = graph_.node(values.back());
      values.pop_back();
      Need& marked = need_[static_cast<size_t>(node.id)];
      if (slice(node.id) != k || marked <= need) continue;
      marked = need;
      values.insert(values.end(), node.inputs.begin(), node.inputs.end());
    }
  }

  [[nodiscard]] bool may_fuse(const Node& node) const {
    if (node.kind != OpKind::kLinear || slice(node.id) < 0) return false;
    if (contains(contiguous_, node.id)) return false;
    // A weight that others use too would be there twice.
    return std::all_of(node.inputs.begin() + 1, node.inputs.end(), [&](ValueId weight) {
      return uses_[static_cast<size_t>(weight)] == 1;
    });
  }
  [[nodiscard]] Family family_of(const Node& node) const {
    return {.input = node.inputs[0],
            .slice = slice(node.id),
            .has_bias = node.inputs.size() > 2,
            .out_dtype = node.type.dtype};
  }

  void add_groups(const Family& family, std::map<Need, Group>& by_need) {
    Group& q = by_need[Need::kQuery];
    Group& kv = by_need[Need::kKeyValue];
    if (!q.empty() && !kv.empty() && fuses_q(family, q, kv)) {
      q.insert(q.end(), kv.begin(), kv.end());
      kv.clear();
    }
    for (auto& [need, group] : by_need) {
      if (group.size() < 2) continue;
      // Gates first: kGatedActivation has them there.
      std::ranges::stable_partition(group, [&](NodeId id) { return is_activated(id); });
      groups_.push_back(std::move(group));
    }
  }
  [[nodiscard]] bool is_activated(NodeId product) const {
    const std::vector<NodeId> users = graph_.consumers(product);
    return std::ranges::any_of(
        users, [&](NodeId user) { return graph_.node(user).kind == OpKind::kActivation; });
  }

  [[nodiscard]] int64_t width_of(const Group& group) const {
    int64_t width = 0;
    for (const NodeId id : group) width += graph_.type(id).row_shape[0];
    return width;
  }

  bool fuses_q(const Family& family, const Group& q, const Group& kv) {
    const Node& attention = graph_.node(attentions_[static_cast<size_t>(family.slice)]);
    const auto& attrs = std::get<AttentionAttrs>(attention.attrs);
    const auto sent = [&](size_t input) {
      return graph_.type(attention.inputs[input]).row_bytes();
    };
    const ValueType& in = graph_.type(family.input);
    const ProjectionShape shape{.in_width = in.row_shape[0],
                                .q_width = width_of(q),
                                .kv_width = width_of(kv),
                                .element_bytes = static_cast<int64_t>(dtype_bytes(in.dtype)),
                                .q_bytes = sent(0),
                                .kv_bytes = sent(1) + (attrs.latent ? 0 : sent(2)),
                                .window = attrs.window};
    const auto known = std::ranges::find(decisions_, shape, &ProjectionDecision::shape);
    if (known != decisions_.end()) {
      ++known->num_attentions;
      return known->estimate.fuses();
    }
    decisions_.push_back({shape, estimate_projection(shape, rates_, workload_), 1});
    return decisions_.back().estimate.fuses();
  }

  const Graph& graph_;
  const ProjectionRates& rates_;
  const ProjectionWorkload& workload_;
  std::vector<NodeId> attentions_;
  std::vector<int32_t> slices_;
  std::vector<int32_t> uses_;
  NodeSet contiguous_;
  std::vector<Need> need_;
  std::vector<Group> groups_;
  std::vector<ProjectionDecision> decisions_;
};

// "layers.0.q_proj+k_proj" of "layers.0.q_proj" and "layers.0.k_proj".
std::string joined_name(const Graph& graph, const std::vector<ValueId>& values) {
  const std::string& first = graph.node(values.front()).name;
  size_t shared = first.size();
  for (const ValueId value : values) {
    const std::string& name = graph.node(value).name;
    const auto differ = std::ranges::mismatch(first.substr(0, shared), name).in2;
    shared = static_cast<size_t>(differ - name.begin());
  }
  const size_t dot = first.substr(0, shared).rfind('.');
  const size_t module = dot == std::string::npos ? 0 : dot + 1;
  std::string joined = first;
  for (size_t i = 1; i < values.size(); ++i) {
    joined += "+" + graph.node(values[i]).name.substr(module);
  }
  return joined;
}

// The weights of input `index` of each product, on top of each other.
ValueId stacked_weight(const Graph& graph, const Group& group, size_t index, Graph& to) {
  std::vector<ValueId> weights;
  WeightSource source;
  ValueType type = graph.type(graph.node(group.front()).inputs[index]);
  int64_t rows = 0;
  for (const NodeId product : group) {
    const Node& weight = graph.node(graph.node(product).inputs[index]);
    weights.push_back(weight.id);
    source = stack(std::move(source), std::get<WeightAttrs>(weight.attrs).source);
    rows += weight.type.row_shape[0];
  }
  type.row_shape = type.row_shape.with(0, rows);
  return to.add_weight(joined_name(graph, weights), type, std::move(source));
}

// One product; each of the group becomes a view of it.
void fuse(const Graph& graph, const Group& group, GraphCopy& copy) {
  const Node& first = graph.node(group.front());
  std::vector<ValueId> inputs = {copy.at(first.inputs[0])};
  for (size_t i = 1; i < first.inputs.size(); ++i) {
    inputs.push_back(stacked_weight(graph, group, i, copy.to()));
  }
  const ValueId product =
      copy.to().add(OpKind::kLinear, joined_name(graph, group), std::move(inputs), first.attrs);
  int64_t begin = 0;
  for (const NodeId id : group) {
    const int64_t count = graph.type(id).row_shape[0];
    copy.put(id, copy.columns(graph.node(id).name, product, {begin, count}));
    begin += count;
  }
}

}  // namespace

Rewritten FusedProducts::rewrite(const Graph& graph) const {
  Grouping grouping(graph, rates_, workload_);
  std::vector<const Group*> group_of(graph.nodes().size());
  for (const Group& group : grouping.groups()) {
    for (const NodeId id : group) group_of[static_cast<size_t>(id)] = &group;
  }
  GraphCopy copy(graph);
  NodeSet fused(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    const Group* group = group_of[static_cast<size_t>(node.id)];
    if (group == nullptr) {
      copy.copy(node);
    } else if (!contains(fused, node.id)) {
      fuse(graph, *group, copy);
      for (const NodeId id : *group) fused[static_cast<size_t>(id)] = true;
    }
  }
  return {copy.finish(), static_cast<int32_t>(grouping.groups().size()), grouping.take_decisions()};
}

}  // namespace lamina
