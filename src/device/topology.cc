#include "device/topology.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>

namespace lamina {
namespace {

constexpr int kMostCpus = CPU_SETSIZE;
constexpr size_t kMostNodes = 1024;
constexpr size_t kBitsPerWord = std::numeric_limits<unsigned long>::digits;

using Hwloc = std::unique_ptr<hwloc_topology, void (*)(hwloc_topology*)>;
using Bitmap = std::unique_ptr<hwloc_bitmap_s, void (*)(hwloc_bitmap_s*)>;

Bitmap make_bitmap() {
  return {hwloc_bitmap_alloc(), hwloc_bitmap_free};
}

CpuList to_list(hwloc_const_bitmap_t set) {
  CpuList list;
  for (int i = hwloc_bitmap_first(set); i >= 0; i = hwloc_bitmap_next(set, i)) list.push_back(i);
  return list;
}

// Of the calling thread. More hardware threads than a cpu_set_t has are not used.
CpuList affinity_mask() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CpuList cpus;
  if (::sched_getaffinity(0, sizeof(mask), &mask) != 0) return {0};
  for (int i = 0; i < kMostCpus; ++i) {
    if (CPU_ISSET(i, &mask)) cpus.push_back(i);
  }
  return cpus;
}

// Null where the machine cannot be looked into.
Hwloc load(const std::string& synthetic) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return {nullptr, hwloc_topology_destroy};
  Hwloc hwloc(raw, hwloc_topology_destroy);
  // Looking must not move threads: hwloc would ask each processor in turn about itself.
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING);
  const bool is_set =
      synthetic.empty() || hwloc_topology_set_synthetic(raw, synthetic.c_str()) == 0;
  if (!is_set || hwloc_topology_load(raw) != 0) hwloc.reset();
  return hwloc;
}

// Takes the node's part out of `left`: a node of another kind of memory may have the same cores.
NumaNode read_node(hwloc_topology* hwloc, hwloc_obj_t object, hwloc_bitmap_t left) {
  NumaNode node{.id = static_cast<int>(object->os_index), .cores = {}};
  const Bitmap of_node = make_bitmap();
  const Bitmap of_core = make_bitmap();
  hwloc_bitmap_and(of_node.get(), object->cpuset, left);
  hwloc_bitmap_andnot(left, left, of_node.get());
  const int depth = hwloc_get_type_or_below_depth(hwloc, HWLOC_OBJ_CORE);
  hwloc_obj_t core = nullptr;
  while ((core = hwloc_get_next_obj_by_depth(hwloc, depth, core)) != nullptr) {
    hwloc_bitmap_and(of_core.get(), core->cpuset, of_node.get());
    if (!hwloc_bitmap_iszero(of_core.get())) node.cores.push_back(to_list(of_core.get()));
  }
  return node;
}

Topology without_hwloc() {
  NumaNode node;
  for (const int cpu : affinity_mask()) node.cores.push_back({cpu});
  return {.nodes = {std::move(node)}};
}

// By the control group's quota of processor time, where it has one.
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota_us = 0;
  double period_us = 0;
  if (!(file >> quota_us >> period_us) || quota_us <= 0 || period_us <= 0) return kMostCpus;
  return static_cast<int>(std::clamp(std::ceil(quota_us / period_us), 1.0, double{kMostCpus}));
}

// The i-th hardware thread of each core, i = 0, 1, ...
template <typename Nodes>
CpuList in_order(const Nodes& nodes) {
  CpuList cpus;
  bool found = true;
  for (size_t i = 0; found; ++i) {
    found = false;
    for (const NumaNode& node : nodes) {
      for (const CpuList& core : node.cores) {
        if (i >= core.size()) continue;
        cpus.push_back(core[i]);
        found = true;
      }
    }
  }
  return cpus;
}

}  // namespace

size_t Topology::num_cores() const {
  size_t count = 0;
  for (const NumaNode& node : nodes) count += node.cores.size();
  return count;
}

CpuList Topology::cpus() const {
  return in_order(nodes);
}

CpuList Topology::cpus_of(int id) const {
  const auto node =
      std::find_if(nodes.begin(), nodes.end(), [id](const NumaNode& n) { return n.id == id; });
  return node == nodes.end() ? CpuList() : in_order(std::span(&*node, 1));
}

std::vector<int> Topology::nodes_of(std::span<const int> cpus) const {
  std::vector<int> ids;
  for (const NumaNode& node : nodes) {
    const CpuList here = cpus_of(node.id);
    const bool holds_any = std::any_of(here.begin(), here.end(), [cpus](int cpu) {
      return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end();
    });
    if (holds_any) ids.push_back(node.id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Topology read_topology(const std::string& synthetic) {
  const Hwloc hwloc = load(synthetic);
  if (hwloc == nullptr) return without_hwloc();
  const Bitmap left = make_bitmap();
  if (hwloc_topology_is_thissystem(hwloc.get()) != 0) {
    for (const int cpu : affinity_mask()) {
      hwloc_bitmap_set(left.get(), static_cast<unsigned>(cpu));
    }
  } else {
    hwloc_bitmap_copy(left.get(), hwloc_topology_get_topology_cpuset(hwloc.get()));
  }
  Topology topology;
  hwloc_obj_t object = nullptr;
  while ((object = hwloc_get_next_obj_by_type(hwloc.get(), HWLOC_OBJ_NUMANODE, object)) !=
         nullptr) {
    NumaNode node = read_node(hwloc.get(), object, left.get());
    if (!node.cores.empty()) topology.nodes.push_back(std::move(node));
  }
  return topology.nodes.empty() ? without_hwloc() : topology;
}

int available_cores() {
  return std::clamp(static_cast<int>(affinity_mask().size()), 1, quota_cores());
}

// ---- lists ----

Result<CpuList> parse_cpu_list(const std::string& text) {
  const auto refused = [&text] {
    return invalid_argument(
        fmt::format("'{}' does not name hardware threads: write them as 0-3,8", text));
  };
  CpuList cpus;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  const auto read_number = [&](int& number) {
    const auto [rest, error] = std::from_chars(at, end, number);
    at = rest;
    return error == std::errc() && number >= 0 && number < kMostCpus;
  };
  for (bool is_over = false; !is_over; ++at) {
    int first = 0;
    if (!read_number(first)) return refused();
    int last = first;
    if (at != end && *at == '-') {
      ++at;
      if (!read_number(last) || last < first) return refused();
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    is_over = at == end;
    if (!is_over && *at != ',') return refused();
  }
  CpuList sorted = cpus;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return refused();
  return cpus;
}

std::string format_cpu_list(std::span<const int> cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[i]);
    if (last > i) text += fmt::format("-{}", cpus[last]);
    i = last + 1;
  }
  return text;
}

// ---- binding ----

bool bind_this_thread(std::span<const int> cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < kMostCpus) CPU_SET(static_cast<size_t>(cpu), &mask);
  }
  return ::sched_setaffinity(0, sizeof(mask), &mask) == 0;
}

MemoryFromNodes::MemoryFromNodes(std::span<const int> nodes) {
  Policy wanted{.mode = nodes.size() == 1 ? MPOL_PREFERRED : MPOL_INTERLEAVE,
                .nodes = std::vector<unsigned long>(kMostNodes / kBitsPerWord)};
  before_.nodes = wanted.nodes;
  if (nodes.empty()) return;
  for (const int node : nodes) {
    const auto bit = static_cast<size_t>(node);
    if (bit < kMostNodes) wanted.nodes[bit / kBitsPerWord] |= 1UL << (bit % kBitsPerWord);
  }
  is_set_ =
      ::syscall(SYS_get_mempolicy, &before_.mode, before_.nodes.data(), kMostNodes, nullptr, 0) ==
          0 &&
      ::syscall(SYS_set_mempolicy, wanted.mode, wanted.nodes.data(), kMostNodes) == 0;
}

MemoryFromNodes::~MemoryFromNodes() {
  if (is_set_) ::syscall(SYS_set_mempolicy, before_.mode, before_.nodes.data(), kMostNodes);
}

}  // namespace lamina
