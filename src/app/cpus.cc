#include "app/cpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace lamina::app {
namespace {

CpuList named_cpus(const std::string& text, const Topology& topology) {
  CpuList cpus = parse_cpu_list(text).value_or_throw();
  const CpuList usable = topology.cpus();
  for (const int cpu : cpus) {
    if (std::find(usable.begin(), usable.end(), cpu) != usable.end()) continue;
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--cpu-bind {}: this process may not use hardware thread {}, but {}",
                            text,
                            cpu,
                            format_cpu_list(usable)));
  }
  return cpus;
}

// At most.
CpuList first_of(const CpuList& cpus, int32_t count) {
  return {cpus.begin(), cpus.begin() + std::min<ptrdiff_t>(count, std::ssize(cpus))};
}

// A node's part of a process's share; all nodes count as equal where threads are not bound.
CpuShare share_on(const ProcessCpus& cpus, int node, size_t num_nodes) {
  const CpuList here = cpus.topology.cpus_of(node);
  CpuShare share{.num_threads = std::max(1, cpus.share.num_threads / static_cast<int>(num_nodes)),
                 .cpus = {},
                 .node = node};
  for (const int cpu : cpus.share.cpus) {
    if (std::find(here.begin(), here.end(), cpu) != here.end()) share.cpus.push_back(cpu);
  }
  if (!share.cpus.empty()) share.num_threads = static_cast<int32_t>(share.cpus.size());
  return share;
}

std::vector<int> node_ids(const Topology& topology) {
  std::vector<int> ids;
  ids.reserve(topology.nodes.size());
  for (const NumaNode& node : topology.nodes) ids.push_back(node.id);
  return ids;
}

// That the process's pools run on.
std::vector<int> nodes_of(const ProcessCpus& cpus) {
  return cpus.share.cpus.empty() ? node_ids(cpus.topology)
                                 : cpus.topology.nodes_of(cpus.share.cpus);
}

}  // namespace

std::string to_string(const CpuShare& share) {
  std::string text = fmt::format("{} threads", share.num_threads);
  if (!share.cpus.empty()) text += " on " + format_cpu_list(share.cpus);
  if (share.node >= 0) text += fmt::format(" of node {}", share.node);
  return text;
}

CpuShare share_of_process(const CpuOptions& options, const Topology& topology) {
  CpuShare share{.num_threads = options.threads, .cpus = {}, .node = options.numa_node};
  if (options.cpu_bind != "auto" && options.cpu_bind != "none") {
    share.cpus = named_cpus(options.cpu_bind, topology);
    const auto num_named = static_cast<int32_t>(share.cpus.size());
    if (share.num_threads == 0) share.num_threads = num_named;
    if (share.num_threads > num_named) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("--cpu-bind {} names {} hardware threads for {} threads",
                              options.cpu_bind,
                              num_named,
                              share.num_threads));
    }
    share.cpus = first_of(share.cpus, share.num_threads);
    return share;
  }
  if (share.num_threads == 0) share.num_threads = available_cores();
  const CpuList cpus = topology.cpus();
  const auto count = static_cast<size_t>(share.num_threads);
  const bool takes_every_core = topology.num_cores() <= count && count <= cpus.size();
  if (options.cpu_bind == "auto" && takes_every_core) {
    share.cpus = first_of(cpus, share.num_threads);
  }
  return share;
}

ProcessCpus settle(const CpuOptions& options) {
  Topology topology = read_topology();
  if (options.numa_node >= 0) {
    const CpuList cpus = topology.cpus_of(options.numa_node);
    if (cpus.empty()) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("--numa-node {}: this process may use the nodes {}",
                              options.numa_node,
                              fmt::join(node_ids(topology), ", ")));
    }
    bind_this_thread(cpus);
    std::erase_if(topology.nodes,
                  [&](const NumaNode& node) { return node.id != options.numa_node; });
  }
  CpuShare share = share_of_process(options, topology);
  return {.topology = std::move(topology), .share = std::move(share)};
}

std::vector<int> memory_nodes(const ProcessCpus& cpus) {
  if (cpus.share.node >= 0) return {cpus.share.node};
  std::vector<int> nodes = nodes_of(cpus);
  if (cpus.topology.nodes.size() == 1) nodes.clear();
  return nodes;
}

CpuShare beside(CpuShare share, int32_t num_gpus) {
  if (4 * num_gpus > share.num_threads) return share;
  share.num_threads -= num_gpus;
  if (!share.cpus.empty()) share.cpus.resize(static_cast<size_t>(share.num_threads));
  return share;
}

std::vector<CpuShare> split(const CpuShare& share, int32_t num_parts) {
  const int32_t num_threads = std::max(1, share.num_threads / num_parts);
  const bool is_bound = !share.cpus.empty() && num_threads * num_parts <= share.num_threads;
  std::vector<CpuShare> parts;
  for (int32_t i = 0; i < num_parts; ++i) {
    CpuShare& part = parts.emplace_back();
    part.num_threads = num_threads;
    part.node = share.node;
    if (!is_bound) continue;
    const auto begin = share.cpus.begin() + static_cast<ptrdiff_t>(i) * num_threads;
    part.cpus.assign(begin, begin + num_threads);
  }
  return parts;
}

std::vector<CpuShare> shares_of_workers(const ProcessCpus& cpus, int32_t num_workers) {
  const std::vector<int> nodes = nodes_of(cpus);
  if (nodes.size() == 1) return split(cpus.share, num_workers);
  std::vector<CpuShare> shares(static_cast<size_t>(num_workers));
  for (size_t first = 0; first < std::min(nodes.size(), shares.size()); ++first) {
    const size_t num_here = (shares.size() - first + nodes.size() - 1) / nodes.size();
    std::vector<CpuShare> here =
        split(share_on(cpus, nodes[first], nodes.size()), static_cast<int32_t>(num_here));
    for (size_t i = 0; i < num_here; ++i) shares[first + i * nodes.size()] = std::move(here[i]);
  }
  return shares;
}

std::vector<int> nodes_of_rank(const ProcessCpus& cpus,
                               int32_t rank,
                               int32_t num_ranks,
                               int32_t num_replicas) {
  const std::vector<CpuShare> pools = split(cpus.share, num_ranks * num_replicas);
  CpuList used;
  for (auto i = static_cast<size_t>(rank); i < pools.size(); i += static_cast<size_t>(num_ranks)) {
    used.insert(used.end(), pools[i].cpus.begin(), pools[i].cpus.end());
  }
  return used.empty() || cpus.topology.nodes.size() == 1 ? memory_nodes(cpus)
                                                         : cpus.topology.nodes_of(used);
}

}  // namespace lamina::app
