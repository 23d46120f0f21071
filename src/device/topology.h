// Topology: where the hardware threads that this process may use lie: physical cores, grouped by
// NUMA node; which of them a pool's threads take; and binding threads and memory to them. The one
// place that knows hwloc. Threads and memory are bound by best effort: refusal costs speed alone.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace lamina {

// Hardware threads go by the numbers that the operating system gives them, and so do nodes.
using CpuList = std::vector<int>;

struct NumaNode {
  int id = 0;
  std::vector<CpuList> cores;  // hardware threads of each physical core, at least one
};

struct Topology {
  std::vector<NumaNode> nodes;  // with at least one core; at least one node

  [[nodiscard]] size_t num_cores() const;
  // Hardware threads in the order in which pools take them: one of each core first, one node after
  // the other, then the cores' second ones in the same order.
  [[nodiscard]] CpuList cpus() const;
  // Of node `id`, as cpus(); empty if there is no such node.
  [[nodiscard]] CpuList cpus_of(int id) const;
  // Ids of the nodes that hold any of `cpus`, ascending.
  [[nodiscard]] std::vector<int> nodes_of(std::span<const int> cpus) const;
};

// What the calling thread may use: its affinity mask and its control group count. `synthetic`
// describes a machine in hwloc's words instead ("numa:2 core:4 pu:2"), for tests; binding to what
// it names may fail. Never fails: a machine that cannot be looked into has one node and, as far as
// its mask says, a core for each hardware thread.
Topology read_topology(const std::string& synthetic = "");

// How many threads may run at once here: hardware threads of the affinity mask, or fewer where the
// control group's quota says so. At least 1.
int available_cores();

// Reads "0-3,8" as hardware threads, in that order. kInvalidArgument for anything else, and for one
// named twice.
Result<CpuList> parse_cpu_list(const std::string& text);
// What parse_cpu_list() reads: "0-3,8".
std::string format_cpu_list(std::span<const int> cpus);

// Keeps the calling thread, and the threads that it starts from now on, on `cpus`. False, and
// nothing happens, where the kernel refuses or there are none.
bool bind_this_thread(std::span<const int> cpus);

// While it lives, memory that the calling thread is the first to touch comes from `nodes`: from the
// one, as long as it has some, or from several in turn, page by page. Threads and processes started
// meanwhile inherit that, for good. Files' pages, which all processes share, stay where they are.
// Nothing happens with no nodes, or where the kernel refuses.
class MemoryFromNodes {
 public:
  explicit MemoryFromNodes(std::span<const int> nodes);
  MemoryFromNodes(const MemoryFromNodes&) = delete;
  MemoryFromNodes& operator=(const MemoryFromNodes&) = delete;
  ~MemoryFromNodes();

 private:
  struct Policy {
    int mode = 0;
    std::vector<unsigned long> nodes;  // a bit for each
  };

  bool is_set_ = false;
  Policy before_;
};

}  // namespace lamina
