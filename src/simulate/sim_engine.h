// SimEngine: the engine of a simulation: requests that come, are served and go, through the real
// scheduler and the real pipeline, with a session opened anew whenever one is lost. Does what
// engine/serving_engine.cc and ClusterBackend do, as a state machine, and checks every token and
// every block. Confined to one thread.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "scheduler/scheduler.h"
#include "simulate/session.h"

namespace lamina::simulate {

class SimEngine final : public Process {
 public:
  SimEngine(const World& world, SimHost& host);
  ~SimEngine() override;

  // An error is a mistake that was found: a wrong token, a lost block.
  Result<bool> step() override;
  void add_awaited(std::vector<AwaitedMessage>& awaited) const override;
  [[nodiscard]] TimePoint next_timer() const override;

  // Every request has ended, and every step.
  [[nodiscard]] bool is_done() const;
  // What must hold then.
  [[nodiscard]] Status check_end() const;
  // Requests and blocks, for the report of a failure.
  [[nodiscard]] std::string to_string() const;

  [[nodiscard]] const Scheduler& scheduler() const { return *scheduler_; }
  // Of the sessions, in their order.
  [[nodiscard]] const std::list<PipelineRecord>& records() const { return records_; }
  [[nodiscard]] const std::list<Replay>& replays() const { return replays_; }
  // Changes of the active micro-batches while a step was under way.
  [[nodiscard]] uint64_t num_changes() const { return num_changes_; }
  [[nodiscard]] uint64_t num_steps() const { return num_steps_; }
  [[nodiscard]] uint64_t num_tokens() const { return num_tokens_; }

 private:
  struct Job {
    const RequestSpec* spec = nullptr;
    std::vector<int32_t> expected;       // tokens to come
    std::unique_ptr<Sequence> sequence;  // from its arrival to its end
    bool has_arrived = false;
    bool has_ended = false;
  };
  // Blocks that a removed sequence leaves to a step under way.
  struct Leftover {
    int32_t micro_batch = 0;
    int32_t num_blocks = 0;
  };

  bool take_commands();
  void change_active();
  void arrive(Job& job, uint64_t id);
  void cancel(Job& job);
  void end(Job& job);
  bool ensure_session();
  [[nodiscard]] const SessionSpec& session_spec(uint64_t epoch) const;
  Replay& add_replay();
  void close_session(const std::string& why);
  [[nodiscard]] bool has_step_under_way() const;
  Result<bool> start_steps();
  Result<bool> finish_step();
  Status apply(const FinishedStep& finished);
  Status deliver(const SequenceStep& step, const SequenceOutput& output);
  Status check_blocks() const;
  Status check_records() const;
  void log(const std::string& line) const;

  World world_;
  std::vector<Job> jobs_;
  std::map<const Sequence*, Job*> job_of_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::optional<StepPlan>> under_way_;
  std::vector<Leftover> leftovers_;
  std::list<PipelineRecord> records_;
  std::list<Replay> replays_;
  std::unique_ptr<Session> session_;
  uint64_t epoch_ = 0;
  TimePoint rebalance_at_ = TimePoint::max();
  size_t next_change_ = 0;
  int32_t num_active_;
  uint64_t num_changes_ = 0;
  uint64_t num_steps_ = 0;
  uint64_t num_tokens_ = 0;
};

}  // namespace lamina::simulate
