#include "planner/model_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "graph/graph.h"
#include "model/builder.h"
#include "model/model_files.h"

namespace lamina::planner {
namespace {

constexpr double kElementBytes = 2;

struct BuiltInModel {
  std::string_view name;
  double weight_bytes;
  int32_t num_layers;
  int32_t hidden_size;
  int32_t intermediate_size;
  int32_t num_heads;
  int32_t num_kv_heads;
};
// Weights, layers, hidden size and G from the paper's Table 3, the rest from the models' published
// configurations.
constexpr std::array<BuiltInModel, 3> kBuiltIn = {{
    {"llama-33b", 64.7e9, 60, 6656, 17920, 52, 52},
    {"llama-65b", 130.1e9, 80, 8192, 22016, 64, 64},
    {"llama3-70b", 137.5e9, 80, 8192, 28672, 64, 8},
}};

ModelWork work_of(const BuiltInModel& model) {
  const double hidden = model.hidden_size;
  const double kv_width = hidden * model.num_kv_heads / model.num_heads;
  const double layer_weights =
      2 * hidden * hidden + 2 * hidden * kv_width + 3 * hidden * model.intermediate_size;
  ModelWork work;
  work.name = model.name;
  work.num_layers = model.num_layers;
  work.num_heads = model.num_heads;
  work.num_kv_heads = model.num_kv_heads;
  work.head_dim = work.value_dim = model.hidden_size / model.num_heads;
  work.weight_bytes = work.dense_bytes = model.weight_bytes;
  work.flop_per_token = 2 * model.weight_bytes / kElementBytes;
  work.q_bytes = work.out_bytes = kElementBytes * hidden;
  work.kv_bytes = 2 * kElementBytes * kv_width;
  work.carried_bytes = work.reduced_bytes = kElementBytes * hidden;
  work.kv_projection_share = 2 * hidden * kv_width / layer_weights;
  const auto kv_outputs = static_cast<int64_t>(kv_width);
  work.products = {{model.hidden_size, model.hidden_size, 2 * model.num_layers},
                   {kv_outputs, model.hidden_size, 2 * model.num_layers},
                   {model.intermediate_size, model.hidden_size, 2 * model.num_layers},
                   {model.hidden_size, model.intermediate_size, model.num_layers}};
  return work;
}

// Adds up what a graph's operators read and compute for each token.
class GraphAccount {
 public:
  explicit GraphAccount(const Graph& graph) : graph_(graph) {}

  void add_to(ModelWork& work) {
    for (const Node& node : graph_.nodes()) {
      if (node.kind == OpKind::kWeight) {
        work.weight_bytes += static_cast<double>(node.type.row_bytes());
      } else {
        add_operator(node, work);
      }
    }
  }

 private:
  [[nodiscard]] double bytes(ValueId value) const {
    return static_cast<double>(graph_.type(value).row_bytes());
  }
  [[nodiscard]] double elements(ValueId value) const {
    return static_cast<double>(graph_.type(value).row_shape.num_elements());
  }

  void add_operator(const Node& node, ModelWork& work) {
    switch (node.kind) {
      case OpKind::kLinear:
      case OpKind::kHeadLinear:
        work.flop_per_token += 2 * elements(node.inputs[1]);
        add_shape(graph_.type(node.inputs[1]).row_shape, work);
        if (read_.insert(node.inputs[1]).second) work.dense_bytes += bytes(node.inputs[1]);
        break;
      case OpKind::kExperts:
        add_experts(node, work);
        break;
      case OpKind::kAttention:
        work.q_bytes += bytes(node.inputs[0]);
        work.kv_bytes += bytes(node.inputs[1]) + (work.latent ? 0 : bytes(node.inputs[2]));
        work.out_bytes += static_cast<double>(node.type.row_bytes());
        work.windows.push_back(std::get<AttentionAttrs>(node.attrs).window);
        break;
      default:  // small beside these
        break;
    }
  }

  // A head's own matrix counts as one product of all heads' rows.
  static void add_shape(const Shape& weight, ModelWork& work) {
    const int64_t inputs = weight[weight.rank() - 1];
    ProductShape shape{weight.num_elements() / inputs, inputs, 1};
    for (ProductShape& known : work.products) {
      if (known.outputs != shape.outputs || known.inputs != shape.inputs) continue;
      ++known.count;
      return;
    }
    work.products.push_back(shape);
  }

  void add_experts(const Node& node, ModelWork& work) {
    const double num_experts = static_cast<double>(graph_.type(node.inputs[3]).row_shape[0]);
    const double share = experts_per_token(node.inputs[1], num_experts) / num_experts;
    work.flop_per_token += 2 * share * (elements(node.inputs[2]) + elements(node.inputs[3]));
    work.expert_bytes += bytes(node.inputs[2]) + bytes(node.inputs[3]);
    work.expert_share = share;
  }

  // What the routing operator behind `routes` says, else all.
  [[nodiscard]] double experts_per_token(ValueId routes, double num_experts) const {
    const Node* node = &graph_.node(routes);
    while (!node->inputs.empty()) {
      if (const auto* attrs = std::get_if<RouteAttrs>(&node->attrs)) return attrs->top_k;
      node = &graph_.node(node->inputs[0]);
    }
    return num_experts;
  }

  const Graph& graph_;
  std::set<ValueId> read_;  // tied weights are stored once; a product reads them once
};

}  // namespace

ModelWork model_work(const ModelConfig& config, const std::string& name) {
  const Graph graph = build_graph(config, DType::kBF16);
  const std::vector<NodeId> attentions = graph.attention_nodes();
  if (attentions.empty()) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{}: no attention to place", name));
  }
  const Node& attention = graph.node(attentions.front());
  const auto* const attrs = std::get_if<AttentionAttrs>(&attention.attrs);
  LAMINA_CHECK(attrs != nullptr);
  ModelWork work;
  work.name = name;
  work.num_layers = static_cast<int32_t>(attentions.size());
  work.num_heads = attrs->num_heads;
  work.num_kv_heads = attrs->num_kv_heads;
  work.head_dim = attrs->head_dim;
  work.value_dim = attrs->value_dim;
  work.latent = attrs->latent;
  GraphAccount(graph).add_to(work);
  const bool has_windows = std::any_of(
      work.windows.begin(), work.windows.end(), [](const auto& w) { return w.has_value(); });
  if (!has_windows) work.windows.clear();
  const double layers = work.num_layers;
  work.q_bytes /= layers;
  work.kv_bytes /= layers;
  work.out_bytes /= layers;
  work.carried_bytes = work.reduced_bytes = kElementBytes * config.hidden_size;
  const double layer_bytes = work.dense_bytes / layers;
  work.kv_projection_share = std::min(1.0, config.hidden_size * work.kv_bytes / layer_bytes);
  return work;
}

std::vector<std::string> built_in_models() {
  std::vector<std::string> names;
  for (const BuiltInModel& model : kBuiltIn) names.emplace_back(model.name);
  return names;
}

ModelWork read_model_work(const std::string& name_or_path) {
  for (const BuiltInModel& model : kBuiltIn) {
    if (model.name == name_or_path) return work_of(model);
  }
  const std::filesystem::path path(name_or_path);
  if (!std::filesystem::exists(path)) {
    throw Error(StatusCode::kNotFound,
                fmt::format("no model '{}': neither a file nor one of {}",
                            name_or_path,
                            fmt::join(built_in_models(), ", ")));
  }
  return model_work(read_model_config(path), path.filename().string());
}

}  // namespace lamina::planner
