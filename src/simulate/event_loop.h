// EventLoop: runs the processes of a simulation in the order of their virtual times. The process
// with the earliest next event does one thing, then waits for its turn again: nobody acts on what a
// message from another's past could still change. Also holds each process to what its outermost
// loop will do with it: sleep on what add_awaited() names. Confined to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/sim/sim_network.h"
#include "transport/wait_any.h"

namespace lamina::simulate {

// A state machine on a host, with the endpoints and whatever else dies with it.
class Process {
 public:
  explicit Process(SimHost& host) : host_(&host) {}
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  virtual ~Process() = default;

  // Does one thing, if there is one: false if not. What it polls, it polls before it computes.
  virtual Result<bool> step() = 0;
  virtual void add_awaited(std::vector<AwaitedMessage>& awaited) const = 0;
  // When step() has something to do without a message.
  [[nodiscard]] virtual TimePoint next_timer() const { return TimePoint::max(); }

  [[nodiscard]] SimHost& host() const { return *host_; }

 private:
  SimHost* host_;
};

// Takes a line of the story of a simulation; empty: nobody listens.
using Log = std::function<void(const std::string&)>;

class EventLoop {
 public:
  struct Limits {
    uint64_t max_steps = 0;
    TimePoint end{};  // virtual
  };

  EventLoop(SimNetwork& network, const Limits& limits, Log log)
      : network_(network), limits_(limits), log_(std::move(log)) {}

  // One that fails ends: its endpoints are closed. Also while run() is running.
  void add(std::unique_ptr<Process> process);
  // Until `is_done`. An error of `engine`, which stays the caller's, is an error of the simulation,
  // and so is a stall, a limit, a message overwritten, or a process that would sleep or spin where
  // it must not.
  Status run(Process& engine, const std::function<bool()>& is_done);

  [[nodiscard]] uint64_t num_steps() const { return num_steps_; }
  void log(const std::string& line) const {
    if (log_) log_(line);
  }
  [[nodiscard]] bool is_logging() const { return static_cast<bool>(log_); }

 private:
  struct Entry {
    std::unique_ptr<Process> owned;
    Process* process = nullptr;
    bool is_busy = true;  // the last step did something: there may be more
  };

  [[nodiscard]] TimePoint due_time(const Entry& entry) const;
  Status run_step(Entry& entry);
  void end(Entry& entry, const std::string& why);
  [[nodiscard]] bool is_woken(const Entry& entry);
  [[nodiscard]] bool would_spin(const Process& process);
  // Who waits for what.
  [[nodiscard]] Status failure(const std::string& what) const;

  SimNetwork& network_;
  Limits limits_;
  Log log_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::vector<AwaitedMessage> awaited_;
  uint64_t num_steps_ = 0;
};

// "12.345 ms", for logs.
std::string to_text(TimePoint time);

}  // namespace lamina::simulate
