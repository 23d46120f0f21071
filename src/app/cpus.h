// Who runs where: what of the machine a program's pools take, shared out over the ranks of a model
// and over local attention workers. Arithmetic over a Topology, but for settle().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/options.h"
#include "device/topology.h"

namespace lamina::app {

// Of one pool, or of all pools of a process together.
struct CpuShare {
  int32_t num_threads = 1;
  CpuList cpus;       // one for each thread, or none: the kernel places them
  int32_t node = -1;  // NUMA node to live on; -1: any

  friend bool operator==(const CpuShare&, const CpuShare&) = default;
};

// "4 threads on 0-3 of node 1".
std::string to_string(const CpuShare& share);

// What a program keeps from its start on.
struct ProcessCpus {
  Topology topology;  // what it may use
  CpuShare share;     // of all its pools
};

// What the options say on a machine. Threads are bound where they are named, or, with "auto", where
// there is one for every core at least: fewer may meet another program's on the same cores, while
// others idle. Throws Error kInvalidArgument.
CpuShare share_of_process(const CpuOptions& options, const Topology& topology);

// The calling thread moves to options.numa_node, where one is named, and so do threads that it
// starts from now on: a program's first step. Throws Error kInvalidArgument.
ProcessCpus settle(const CpuOptions& options);
// Where memory of such a process should come from: its node, or all in turn.
std::vector<int> memory_nodes(const ProcessCpus& cpus);

// What pools take beside threads that poll GPUs: one hardware thread less for each of those, the
// last ones, where that costs at most a quarter. A polling thread that shared one with a pool would
// keep a whole job waiting for the part of it that lies there.
CpuShare beside(CpuShare share, int32_t num_gpus);

// Equal parts for pools that run at the same time. More parts than threads share the cores, and are
// placed by the kernel.
std::vector<CpuShare> split(const CpuShare& share, int32_t num_parts);

// Local attention workers run while the model worker waits for them: they share its cores, each on
// one NUMA node, the nodes taken in turn.
std::vector<CpuShare> shares_of_workers(const ProcessCpus& cpus, int32_t num_workers);

// Nodes of the pools that use the weights of tensor-parallel rank `rank`; pools: of each rank of
// replica 0, then of replica 1, ... Empty where it does not matter.
std::vector<int> nodes_of_rank(const ProcessCpus& cpus,
                               int32_t rank,
                               int32_t num_ranks,
                               int32_t num_replicas);

}  // namespace lamina::app
