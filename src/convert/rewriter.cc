#include "convert/rewriter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "convert/rewrites/add_norm.h"
#include "convert/rewrites/constant_folding.h"
#include "convert/rewrites/dead_code.h"
#include "convert/rewrites/fused_products.h"
#include "convert/rewrites/gated_activation.h"
#include "convert/rewrites/residual_sums.h"
#include "convert/rewrites/rope_folding.h"

namespace lamina {
namespace {

using Rewrites = std::vector<std::unique_ptr<Rewrite>>;

// Folding shows the others what belongs together, and joins the views that they leave.
Rewrites make_rewrites(const RewriteOptions& options) {
  Rewrites rewrites;
  rewrites.push_back(std::make_unique<DeadCode>());
  rewrites.push_back(std::make_unique<ConstantFolding>());
  rewrites.push_back(std::make_unique<ResidualSums>());
  rewrites.push_back(std::make_unique<FusedProducts>(options.rates, options.workload));
  rewrites.push_back(std::make_unique<GatedActivation>());
  rewrites.push_back(std::make_unique<RopeFolding>());
  rewrites.push_back(std::make_unique<AddNorm>());
  rewrites.push_back(std::make_unique<ConstantFolding>());
  rewrites.push_back(std::make_unique<DeadCode>());
  return rewrites;
}

bool is_disabled(const RewriteOptions& options, std::string_view name) {
  return std::ranges::find(options.disabled, name) != options.disabled.end();
}

void check_names(const RewriteOptions& options) {
  const std::vector<std::string_view> known = rewrite_names();
  for (const std::string& name : options.disabled) {
    if (std::ranges::find(known, name) != known.end()) continue;
    throw Error(
        StatusCode::kInvalidArgument,
        fmt::format("no rewrite is called '{}'; there are {}", name, fmt::join(known, ", ")));
  }
}

void add_to_report(std::string_view name, bool disabled, Rewritten& done, RewriteReport& report) {
  const auto known = std::ranges::find(report.entries, name, &RewriteReport::Entry::name);
  if (known == report.entries.end()) {
    report.entries.push_back({std::string(name), done.num_applied, disabled});
  } else {
    known->num_applied += done.num_applied;
  }
  std::ranges::move(done.projections, std::back_inserter(report.projections));
}

std::vector<AttentionAttrs> attentions_without_scale(const Graph& graph) {
  std::vector<AttentionAttrs> found;
  for (const NodeId id : graph.attention_nodes()) {
    found.push_back(std::get<AttentionAttrs>(graph.node(id).attrs));
    found.back().scale = 1.0F;
  }
  return found;
}

}  // namespace

std::vector<std::string_view> rewrite_names() {
  std::vector<std::string_view> names;
  for (const auto& rewrite : make_rewrites({})) {
    // Names are literals: they outlive the rewrite.
    if (std::ranges::find(names, rewrite->name()) == names.end()) names.push_back(rewrite->name());
  }
  return names;
}

void check_rewritten(std::string_view rewrite, const Graph& before, const Graph& after) {
  const auto fail = [&](const std::string& what) {
    throw Error(StatusCode::kInternal, fmt::format("rewrite {}: {}", rewrite, what));
  };
  try {
    after.verify();
  } catch (const Error& error) {
    fail(error.what());
  }
  if (before.type(before.output()) != after.type(after.output())) {
    fail(fmt::format("the output was {} and is {}",
                     to_string(before.type(before.output())),
                     to_string(after.type(after.output()))));
  }
  if (attentions_without_scale(before) != attentions_without_scale(after)) {
    fail("the attention operators are not the same");
  }
}

RewrittenGraph rewrite_graph(const Graph& graph, const RewriteOptions& options) {
  check_names(options);
  RewrittenGraph result{graph, {}};
  for (const auto& rewrite : make_rewrites(options)) {
    const bool disabled = is_disabled(options, rewrite->name());
    Rewritten done;
    if (!disabled) {
      done = rewrite->rewrite(result.graph);
      check_rewritten(rewrite->name(), result.graph, done.graph);
      result.graph = std::move(done.graph);
    }
    add_to_report(rewrite->name(), disabled, done, result.report);
  }
  return result;
}

}  // namespace lamina
