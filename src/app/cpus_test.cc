#include "app/cpus.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace lamina::app {
namespace {

// Two nodes, 10 and 20, of two cores with two hardware threads each.
Topology two_nodes() {
  return {.nodes = {{.id = 10, .cores = {{0, 4}, {1, 5}}}, {.id = 20, .cores = {{2, 6}, {3, 7}}}}};
}
Topology one_node() {
  return {.nodes = {{.id = 0, .cores = {{0}, {1}, {2}, {3}}}}};
}

CpuShare share(const CpuOptions& options, const Topology& topology = two_nodes()) {
  return share_of_process(options, topology);
}

TEST(ShareOfProcess, AutoBindsWhereThereIsAThreadForEveryCore) {
  EXPECT_EQ(share({.threads = 4, .cpu_bind = "auto"}).cpus, (CpuList{0, 1, 2, 3}));
  EXPECT_EQ(share({.threads = 6, .cpu_bind = "auto"}).cpus, (CpuList{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(share({.threads = 3, .cpu_bind = "auto"}).cpus.empty());
  EXPECT_TRUE(share({.threads = 9, .cpu_bind = "auto"}).cpus.empty());
  EXPECT_EQ(share({.threads = 9, .cpu_bind = "auto"}).num_threads, 9);
}

TEST(ShareOfProcess, NoneBindsNothing) {
  const CpuShare unbound = share({.threads = 4});
  EXPECT_EQ(unbound.num_threads, 4);
  EXPECT_TRUE(unbound.cpus.empty());
}

TEST(ShareOfProcess, AListIsTakenInItsOrder) {
  EXPECT_EQ(share({.cpu_bind = "3,0-1"}), (CpuShare{.num_threads = 3, .cpus = {3, 0, 1}}));
  EXPECT_EQ(share({.threads = 2, .cpu_bind = "3,0-1"}).cpus, (CpuList{3, 0}));
  EXPECT_THROW(share({.threads = 4, .cpu_bind = "0-2"}), Error);
  EXPECT_THROW(share({.cpu_bind = "0-2,9"}), Error);
  EXPECT_THROW(share({.cpu_bind = "all"}), Error);
}

TEST(Split, GivesEachPoolItsOwnCores) {
  const std::vector<CpuShare> parts = split({.num_threads = 4, .cpus = {0, 1, 2, 3}}, 2);
  EXPECT_EQ(parts[0], (CpuShare{.num_threads = 2, .cpus = {0, 1}}));
  EXPECT_EQ(parts[1], (CpuShare{.num_threads = 2, .cpus = {2, 3}}));
}

TEST(Split, MorePoolsThanThreadsAreNotBound) {
  const std::vector<CpuShare> parts = split({.num_threads = 2, .cpus = {0, 1}}, 3);
  ASSERT_EQ(parts.size(), 3U);
  for (const CpuShare& part : parts) EXPECT_EQ(part, CpuShare{});
}

TEST(Beside, LeavesTheLastThreadsToThoseThatPollGpus) {
  const CpuShare share{.num_threads = 8, .cpus = {0, 1, 2, 3, 4, 5, 6, 7}};
  EXPECT_EQ(beside(share, 0), share);
  EXPECT_EQ(beside(share, 2), (CpuShare{.num_threads = 6, .cpus = {0, 1, 2, 3, 4, 5}}));
  EXPECT_EQ(beside(share, 3), share);  // more than a quarter
  EXPECT_EQ(beside({.num_threads = 16}, 1), CpuShare{.num_threads = 15});
}

TEST(SharesOfWorkers, ShareTheCoresOfOneNode) {
  const ProcessCpus cpus{.topology = one_node(),
                         .share = share({.threads = 4, .cpu_bind = "auto"}, one_node())};
  const std::vector<CpuShare> shares = shares_of_workers(cpus, 2);
  EXPECT_EQ(shares[0], (CpuShare{.num_threads = 2, .cpus = {0, 1}}));
  EXPECT_EQ(shares[1], (CpuShare{.num_threads = 2, .cpus = {2, 3}}));
  EXPECT_EQ(shares_of_workers(cpus, 1)[0], cpus.share);
}

TEST(SharesOfWorkers, TakeNodesInTurn) {
  const ProcessCpus cpus{.topology = two_nodes(),
                         .share = share({.threads = 4, .cpu_bind = "auto"})};
  const std::vector<CpuShare> three = shares_of_workers(cpus, 3);
  EXPECT_EQ(three[0], (CpuShare{.num_threads = 1, .cpus = {0}, .node = 10}));
  EXPECT_EQ(three[1], (CpuShare{.num_threads = 2, .cpus = {2, 3}, .node = 20}));
  EXPECT_EQ(three[2], (CpuShare{.num_threads = 1, .cpus = {1}, .node = 10}));
  EXPECT_EQ(shares_of_workers(cpus, 1)[0],
            (CpuShare{.num_threads = 2, .cpus = {0, 1}, .node = 10}));
}

TEST(SharesOfWorkers, StayUnboundWhereTheModelWorkerIs) {
  const ProcessCpus cpus{.topology = two_nodes(), .share = share({.threads = 4})};
  for (const CpuShare& part : shares_of_workers(cpus, 2)) {
    EXPECT_TRUE(part.cpus.empty());
    EXPECT_EQ(part.num_threads, 2);
    EXPECT_GE(part.node, 10);
  }
}

TEST(MemoryNodes, AreThoseOfTheThreads) {
  const Topology topology = two_nodes();
  const auto nodes = [&](const CpuOptions& options) {
    return memory_nodes({.topology = topology, .share = share(options)});
  };
  EXPECT_EQ(nodes({.threads = 4, .cpu_bind = "auto"}), (std::vector<int>{10, 20}));
  EXPECT_EQ(nodes({.threads = 4, .cpu_bind = "auto", .numa_node = 20}), (std::vector<int>{20}));
  EXPECT_EQ(nodes({.cpu_bind = "2-3"}), (std::vector<int>{20}));
  EXPECT_TRUE(memory_nodes({.topology = one_node(),
                            .share = share({.threads = 4, .cpu_bind = "auto"}, one_node())})
                  .empty());
}

TEST(NodesOfRank, AreThoseOfItsPools) {
  const ProcessCpus cpus{.topology = two_nodes(),
                         .share = share({.threads = 4, .cpu_bind = "auto"})};
  EXPECT_EQ(nodes_of_rank(cpus, 0, 2, 1), (std::vector<int>{10}));
  EXPECT_EQ(nodes_of_rank(cpus, 1, 2, 1), (std::vector<int>{20}));
  EXPECT_EQ(nodes_of_rank(cpus, 0, 1, 2), (std::vector<int>{10, 20}));
  EXPECT_EQ(nodes_of_rank(cpus, 4, 8, 1), (std::vector<int>{10, 20}));
}

TEST(Settle, RefusesANodeThatIsNotThere) {
  EXPECT_THROW(settle({.numa_node = 1000}), Error);
}

TEST(Settle, OnTheOnlyNodeChangesNothing) {
  const Topology topology = read_topology();
  if (topology.nodes.size() != 1) GTEST_SKIP() << "several NUMA nodes";
  const int id = topology.nodes.front().id;
  const ProcessCpus there = settle({.numa_node = id});
  EXPECT_EQ(there.topology.cpus(), topology.cpus());
  EXPECT_EQ(there.share.cpus, settle({}).share.cpus);
}

}  // namespace
}  // namespace lamina::app
