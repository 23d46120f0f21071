#include "device/topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <thread>

#include "device/thread_pool.h"

namespace lamina {
namespace {

// Two nodes of two cores with two hardware threads each, numbered core by core.
Topology two_nodes() {
  return read_topology("numa:2 core:2 pu:2");
}

CpuList mask_of_this_thread() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  EXPECT_EQ(::sched_getaffinity(0, sizeof(mask), &mask), 0);
  CpuList cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &mask)) cpus.push_back(i);
  }
  return cpus;
}

TEST(Topology, GroupsHardwareThreadsByCoreAndNode) {
  const Topology topology = two_nodes();
  ASSERT_EQ(topology.nodes.size(), 2U);
  EXPECT_EQ(topology.num_cores(), 4U);
  EXPECT_EQ(topology.nodes[0].cores, (std::vector<CpuList>{{0, 1}, {2, 3}}));
  EXPECT_EQ(topology.nodes[1].cores, (std::vector<CpuList>{{4, 5}, {6, 7}}));
}

TEST(Topology, TakesOneThreadOfEachCoreFirstNodeAfterNode) {
  const Topology topology = two_nodes();
  EXPECT_EQ(topology.cpus(), (CpuList{0, 2, 4, 6, 1, 3, 5, 7}));
  EXPECT_EQ(topology.cpus_of(1), (CpuList{4, 6, 5, 7}));
  EXPECT_EQ(topology.cpus_of(2), CpuList());
}

TEST(Topology, CoresMayDifferInTheirHardwareThreads) {
  const Topology topology{.nodes = {{.id = 3, .cores = {{0, 4}, {1}}}, {.id = 5, .cores = {{2}}}}};
  EXPECT_EQ(topology.cpus(), (CpuList{0, 1, 2, 4}));
  EXPECT_EQ(topology.nodes_of(CpuList{4}), (std::vector<int>{3}));
  EXPECT_EQ(topology.nodes_of(CpuList{2, 1}), (std::vector<int>{3, 5}));
  EXPECT_TRUE(topology.nodes_of(CpuList{}).empty());
}

TEST(Topology, NodesWithoutCoresAreLeftOut) {
  const Topology topology = read_topology("[numa] pack:2 [numa] core:1 pu:1");
  EXPECT_EQ(topology.cpus().size(), 2U);
  for (const NumaNode& node : topology.nodes) EXPECT_FALSE(node.cores.empty());
}

TEST(Topology, AWrongDescriptionGivesThePlainMask) {
  EXPECT_EQ(read_topology("no such machine").cpus(), mask_of_this_thread());
}

TEST(Topology, OfThisMachineIsWhatTheThreadMayUse) {
  const CpuList all = mask_of_this_thread();
  CpuList cpus = read_topology().cpus();
  std::sort(cpus.begin(), cpus.end());
  EXPECT_EQ(cpus, all);
  EXPECT_GE(available_cores(), 1);
  EXPECT_LE(available_cores(), static_cast<int>(all.size()));
  std::thread([&all] {
    ASSERT_TRUE(bind_this_thread(std::span(all).last(1)));
    EXPECT_EQ(read_topology().cpus(), (CpuList{all.back()}));
    EXPECT_EQ(available_cores(), 1);
  }).join();
}

TEST(CpuList, RoundTrips) {
  for (const char* text : {"0", "0-3", "0-3,8", "7,3-4,0"}) {
    EXPECT_EQ(format_cpu_list(*parse_cpu_list(text)), text);
  }
  EXPECT_EQ(*parse_cpu_list("8,0-2"), (CpuList{8, 0, 1, 2}));
}

TEST(CpuList, RefusesWhatIsNone) {
  for (const char* text : {"", "a", "1,", ",1", "3-1", "1-", "-1", "0-2,1", "1 2", "99999999999"}) {
    EXPECT_FALSE(parse_cpu_list(text).ok()) << text;
  }
}

TEST(Binding, IsRefusedWithoutHarm) {
  const CpuList before = mask_of_this_thread();
  EXPECT_FALSE(bind_this_thread({}));
  EXPECT_FALSE(bind_this_thread(CpuList{-1, 1 << 20}));
  EXPECT_EQ(mask_of_this_thread(), before);
  const MemoryFromNodes nowhere(std::vector<int>{1000});
  const MemoryFromNodes unsaid({});
  std::vector<char> still_works(1 << 20, 1);
  EXPECT_EQ(still_works.back(), 1);
}

TEST(ThreadPool, BindsItsThreadsAndOnlyThem) {
  const CpuList all = mask_of_this_thread();
  if (all.size() < 2) GTEST_SKIP() << "one hardware thread";
  ThreadPool pool(2, {all[1], all[0]});
  std::atomic<int> num_bound{0};
  const std::thread::id self = std::this_thread::get_id();
  // Until the pool's own thread has come to take a share.
  for (int i = 0; i < 10000 && num_bound == 0; ++i) {
    pool.parallel_for(8, 1, [&](int64_t, int64_t) {
      if (std::this_thread::get_id() == self) return;
      EXPECT_EQ(mask_of_this_thread(), (CpuList{all[0]}));
      ++num_bound;
    });
  }
  EXPECT_GT(num_bound, 0);
  EXPECT_EQ(mask_of_this_thread(), all);
  std::thread([&] {
    pool.bind_submitter();
    EXPECT_EQ(mask_of_this_thread(), (CpuList{all[1]}));
  }).join();
}

TEST(ThreadPool, WorksWhereItCannotBeBound) {
  ThreadPool pool(3, {5000, 5001, 5002});
  std::atomic<int64_t> sum{0};
  pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 100);
}

TEST(ThreadPool, JobsOfSeveralSubmittersTakeTurns) {
  ThreadPool pool(3);
  std::vector<std::thread> submitters;
  for (int submitter = 0; submitter < 3; ++submitter) {
    submitters.emplace_back([&pool] {
      for (int round = 0; round < 500; ++round) {
        std::vector<int> hits(40, 0);
        pool.parallel_for(40, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        ASSERT_EQ(std::count(hits.begin(), hits.end(), 1), 40);
      }
    });
  }
  for (std::thread& submitter : submitters) submitter.join();
}

}  // namespace
}  // namespace lamina
