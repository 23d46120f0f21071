// A client and servers on the simulated network, driven by a loop as a simulator has it.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "transport/sim/sim_network.h"
#include "transport/sim/sim_testing.h"

namespace lamina {
namespace {

using sim_testing::is_equal;
using sim_testing::message_bytes;
using sim_testing::side_config;
using std::chrono::microseconds;

// One client of several servers: sends to all, computes on what comes back, for some rounds. Each
// server answers with what it got. Driven by next_event_time() alone.
class Conversation {
 public:
  static constexpr uint64_t kNumRounds = 60;

  Conversation(uint64_t seed, const SimLinkConfig& link) : network_(seed) {
    for (uint64_t i = 0; i < kNumServers; ++i) {
      servers_.push_back({.host = &network_.add_host("server " + std::to_string(i))});
      auto pair = network_.connect(
          client_, side_config(1, i + 2), *servers_[i].host, side_config(i + 2, 1), link);
      servers_[i].there = std::move(pair.a);
      servers_[i].here = std::move(pair.b);
    }
  }

  // Times and sizes of everything that happened.
  std::vector<int64_t> run() {
    ask_all();
    while (const auto next = network_.next_event_time()) {
      network_.advance_to(*next);
      if (is_due(client_)) run_client();
      for (Server& server : servers_) {
        if (is_due(*server.host)) run_server(server);
      }
    }
    return history_;
  }
  [[nodiscard]] uint64_t round() const { return round_; }
  [[nodiscard]] uint64_t num_violations() const { return network_.num_violations(); }

 private:
  static constexpr uint64_t kNumServers = 3;

  struct Server {
    SimHost* host = nullptr;
    std::unique_ptr<SimEndpoint> there;  // the client's end
    std::unique_ptr<SimEndpoint> here;
    uint64_t answered = 0;
  };

  [[nodiscard]] bool is_due(const SimHost& host) const {
    const auto next = network_.next_event_time(host);
    return next && *next <= network_.now();
  }
  void ask_all() {
    ++round_;
    for (uint64_t i = 0; i < kNumServers; ++i) {
      const auto bytes = message_bytes((round_ * 97 + i) % 1000, round_ + i);
      EXPECT_TRUE(servers_[i].there->put(0, bytes, round_).ok());
    }
  }
  void run_client() {
    for (uint64_t i = 0; i < kNumServers; ++i) {
      Endpoint& endpoint = *servers_[i].there;
      if (endpoint.poll(0, round_) != PollResult::kReady) return;
      EXPECT_TRUE(
          is_equal(endpoint.payload(0), message_bytes((round_ * 97 + i) % 1000, round_ + i)));
    }
    history_.push_back(client_.now().time_since_epoch().count());
    if (round_ == kNumRounds) return;
    client_.compute(microseconds(30));
    ask_all();
  }
  void run_server(Server& server) {
    while (server.here->poll(0, server.answered + 1) == PollResult::kReady) {
      ++server.answered;
      server.host->compute(microseconds(server.here->payload(0).size()));
      EXPECT_TRUE(server.here->put(0, server.here->payload(0), server.answered).ok());
      history_.push_back(server.host->now().time_since_epoch().count());
    }
  }

  SimNetwork network_;
  SimHost& client_ = network_.add_host("client");
  std::vector<Server> servers_;
  uint64_t round_ = 0;
  std::vector<int64_t> history_;
};

SimLinkConfig bad_link() {
  return {.latency = microseconds(10),
          .bandwidth_bytes_per_us = 50,
          .jitter = microseconds(40),
          .reorder = true,
          .loss_probability = 0.1};
}

TEST(SimConversation, RunsOverABadNetworkToItsEnd) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Conversation conversation(seed, bad_link());
    const auto history = conversation.run();
    EXPECT_EQ(conversation.round(), Conversation::kNumRounds) << "seed " << seed;
    EXPECT_EQ(history.size(), Conversation::kNumRounds * 4) << "seed " << seed;
    EXPECT_EQ(conversation.num_violations(), 0U) << "seed " << seed;
  }
}

TEST(SimConversation, TheSeedGivesTheHistory) {
  const auto history = Conversation(3, bad_link()).run();
  EXPECT_EQ(Conversation(3, bad_link()).run(), history);
  EXPECT_NE(Conversation(4, bad_link()).run(), history);
}

}  // namespace
}  // namespace lamina
