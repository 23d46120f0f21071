#include "convert/min_cut.h"

#include <algorithm>

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/boykov_kolmogorov_max_flow.hpp>

#include "base/check.h"

namespace lamina {
namespace {

using Traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
using Vertex = Traits::vertex_descriptor;
using Edge = Traits::edge_descriptor;
using VertexProperties =
    boost::property<boost::vertex_color_t,
                    boost::default_color_type,
                    boost::property<boost::vertex_distance_t,
                                    int64_t,
                                    boost::property<boost::vertex_predecessor_t, Edge>>>;
using EdgeProperties =
    boost::property<boost::edge_capacity_t,
                    int64_t,
                    boost::property<boost::edge_residual_capacity_t,
                                    int64_t,
                                    boost::property<boost::edge_reverse_t, Edge>>>;
using Flow = boost::
    adjacency_list<boost::vecS, boost::vecS, boost::directedS, VertexProperties, EdgeProperties>;

// Every value becomes two vertices with an edge of its weight between them, so that a cut pays for
// it once however many consumers it has. A cut is paid for where it crosses from the source's side
// to the sink's; edges of unbounded capacity are never crossed that way:
//   out(value) -> in(consumer)   a consumer after needs the value kept;
//   in(consumer) -> in(value)    a consumer before needs the value before.
// Values bound before are the source and values bound after the sink, so that the network holds
// only what is still open.
class FlowNetwork {
 public:
  explicit FlowNetwork(const CutProblem& problem)
      : problem_(problem), flow_(2 + 2 * problem.values.size()) {
    for (const CutValue& value : problem.values) unbounded_ += value.weight;
    for (size_t i = 0; i < problem.values.size(); ++i) {
      if (problem.after[i]) continue;
      const CutValue& value = problem.values[i];
      if (std::ranges::all_of(value.consumers, [&](int32_t c) { return is_before(c); })) continue;
      add_edge(in(i), out(i), value.weight);
      for (const int32_t consumer : value.consumers) add_consumer(i, consumer);
    }
  }

  // True for values that cannot reach the sink: the largest source side among minimum cuts.
  std::vector<bool> solve() {
    boost::boykov_kolmogorov_max_flow(flow_, kSource, kSink);
    const std::vector<bool> reaches_sink = vertices_that_reach_sink();
    std::vector<bool> before(problem_.values.size());
    for (size_t i = 0; i < before.size(); ++i) before[i] = !reaches_sink[in(i)];
    return before;
  }

 private:
  static constexpr Vertex kSource = 0;
  static constexpr Vertex kSink = 1;

  [[nodiscard]] bool is_before(int32_t i) const { return problem_.before[static_cast<size_t>(i)]; }
  [[nodiscard]] Vertex in(size_t i) const {
    if (problem_.before[i]) return kSource;
    return problem_.after[i] ? kSink : 2 + 2 * i;
  }
  [[nodiscard]] static Vertex out(size_t i) { return 3 + 2 * i; }

  void add_consumer(size_t value, int32_t consumer_idx) {
    if (is_before(consumer_idx)) return;
    const auto consumer = static_cast<size_t>(consumer_idx);
    add_edge(out(value), in(consumer), unbounded_);
    // What is bound already needs no second edge.
    if (!problem_.after[consumer] && !problem_.before[value]) {
      add_edge(in(consumer), in(value), unbounded_);
    }
  }

  void add_edge(Vertex from, Vertex to, int64_t capacity) {
    const Edge edge = boost::add_edge(from, to, flow_).first;
    const Edge reverse = boost::add_edge(to, from, flow_).first;
    boost::put(boost::edge_capacity, flow_, edge, capacity);
    boost::put(boost::edge_capacity, flow_, reverse, int64_t{0});
    boost::put(boost::edge_reverse, flow_, edge, reverse);
    boost::put(boost::edge_reverse, flow_, reverse, edge);
  }

  [[nodiscard]] std::vector<bool> vertices_that_reach_sink() const {
    const auto residual = boost::get(boost::edge_residual_capacity, flow_);
    const auto reverse = boost::get(boost::edge_reverse, flow_);
    std::vector<bool> reached(boost::num_vertices(flow_));
    reached[kSink] = true;
    for (std::vector<Vertex> open = {kSink}; !open.empty();) {
      const Vertex vertex = open.back();
      open.pop_back();
      for (auto [edge, end] = boost::out_edges(vertex, flow_); edge != end; ++edge) {
        const Vertex neighbour = boost::target(*edge, flow_);
        if (reached[neighbour] || residual[reverse[*edge]] == 0) continue;
        reached[neighbour] = true;
        open.push_back(neighbour);
      }
    }
    return reached;
  }

  const CutProblem& problem_;
  Flow flow_;
  int64_t unbounded_ = 1;  // more than all weights together
};

void check_problem(const CutProblem& problem) {
  LAMINA_CHECK_EQ(problem.before.size(), problem.values.size());
  LAMINA_CHECK_EQ(problem.after.size(), problem.values.size());
  for (size_t i = 0; i < problem.values.size(); ++i) {
    LAMINA_CHECK(!(problem.before[i] && problem.after[i]), "bound before and after");
    LAMINA_CHECK_GE(problem.values[i].weight, 0);
    for (const int32_t consumer_idx : problem.values[i].consumers) {
      const auto consumer = static_cast<size_t>(consumer_idx);
      LAMINA_CHECK(!problem.before[consumer] || problem.before[i], "bound before, its input not");
      LAMINA_CHECK(!problem.after[i] || problem.after[consumer], "bound after, its consumer not");
    }
  }
}

}  // namespace

std::vector<bool> latest_min_cut(const CutProblem& problem) {
  check_problem(problem);
  return FlowNetwork(problem).solve();
}

int64_t cut_weight(const CutProblem& problem, const std::vector<bool>& before) {
  int64_t weight = 0;
  for (size_t i = 0; i < problem.values.size(); ++i) {
    const CutValue& value = problem.values[i];
    const bool needed_after = std::ranges::any_of(
        value.consumers, [&](int32_t c) { return !before[static_cast<size_t>(c)]; });
    if (before[i] && needed_after) weight += value.weight;
  }
  return weight;
}

}  // namespace lamina
