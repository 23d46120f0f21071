// ServingEngine: the Engine. One thread takes requests and cancellations from a bounded inbox, lets
// the Scheduler plan, the StepBackend run, and hands tokens to the requests' sinks. Public
// functions are safe from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/choice_text.h"
#include "engine/engine.h"
#include "engine/pipeline_controller.h"
#include "engine/step_backend.h"
#include "scheduler/scheduler.h"

namespace lamina {

struct ServingEngineConfig {
  PipelineControllerConfig pipeline;
  SchedulerConfig scheduler;  // num_blocks is set when a session opens
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
  int32_t max_queued_sequences = 512;  // accepted and not ended, beyond max_num_seqs
  std::vector<int32_t> eos_ids;
  Duration stall_limit =
      std::chrono::seconds(120);  // health() fails when running without a step for this long
  Duration outage_limit =
      std::chrono::seconds(30);  // queued requests fail after this long without workers
};

class ServingEngine final : public Engine {
 public:
  // Opens the first session and starts the thread. `tokenizer` may be null; it outlives the engine.
  // Throws Error if no session can be opened.
  ServingEngine(ServingEngineConfig config,
                std::unique_ptr<StepBackend> backend,
                const Tokenizer* tokenizer);
  ServingEngine(const ServingEngine&) = delete;
  ServingEngine& operator=(const ServingEngine&) = delete;
  ~ServingEngine() override;

  Result<uint64_t> submit(GenerationRequest request, EventSink sink) override;
  void cancel(uint64_t handle) override;
  [[nodiscard]] bool is_full(int32_t num_sequences) const override;
  [[nodiscard]] Status health() const override;
  [[nodiscard]] EngineStats stats() const override;
  [[nodiscard]] int32_t max_model_len() const override { return config_.max_model_len; }
  void shutdown(Deadline deadline) override;

 private:
  struct Job;
  struct Choice {
    Job* job = nullptr;
    int32_t idx = 0;
    Sequence sequence;
    ChoiceText text;
    PromptScores prompt_scores{};  // as far as they have come
    bool has_sent_scores = false;
    bool is_finished = false;
  };
  struct Job {  // a request under way
    uint64_t handle = 0;
    GenerationRequest request;
    EventSink sink;
    std::vector<std::unique_ptr<Choice>> choices;
  };

  [[nodiscard]] Status validate(const GenerationRequest& request) const;

  // On the engine's thread.
  void loop();
  void take_commands();
  void start(std::unique_ptr<Job> job);
  Sequence make_sequence(const GenerationRequest& request, int32_t choice_idx);
  bool ensure_session();
  bool open_session();
  void start_steps();
  void finish_step();
  void apply(FinishedStep& finished);
  [[nodiscard]] bool has_step_under_way() const;
  void notify();
  void note_busy(bool is_busy);
  void update_pipeline();
  void deliver(const SequenceStep& step, SequenceOutput& output);
  void deliver_prompt_scores(Choice& choice, SequenceOutput& output);
  void finish_choice(Choice& choice);
  void end_job(uint64_t handle);
  void fail_job(uint64_t handle, const Status& status);
  void fail_running(const Status& status);
  void fail_all(const Status& status);
  void wait_for_work(Duration at_most);
  void publish_stats();

  ServingEngineConfig config_;
  std::unique_ptr<StepBackend> backend_;
  const Tokenizer* tokenizer_;
  int32_t min_blocks_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Job>> inbox_;  // guarded by mutex_; bounded by num_unfinished_
  std::vector<uint64_t> cancelled_;          // guarded by mutex_
  bool has_news_ = false;                    // guarded by mutex_
  EngineStats stats_;                        // guarded by mutex_
  std::atomic<uint64_t> next_handle_{1};
  std::atomic<int32_t> num_unfinished_{0};  // sequences accepted and not ended
  std::atomic<bool> is_up_{false};          // a session is open
  std::atomic<bool> is_draining_{false};
  std::atomic<bool> should_stop_{false};
  std::atomic<int64_t> last_progress_ns_{0};
  std::atomic<bool> is_busy_{false};

  // Owned by the engine's thread.
  std::unique_ptr<Scheduler> scheduler_;
  struct StepUnderWay {
    StepPlan plan;
    TimePoint begin;
  };
  std::vector<std::optional<StepUnderWay>> under_way_;  // by micro-batch
  PipelineController pipeline_;
  TimePoint last_step_event_{};  // while busy: since when `busy_time_` has not grown
  Duration busy_time_{};         // with a step under way, since the last update of the pipeline
  TimePoint last_report_{};
  std::map<uint64_t, std::unique_ptr<Job>> jobs_;  // by handle
  std::unordered_map<const Sequence*, Choice*> choices_;
  uint64_t next_sequence_id_ = 1;
  TimePoint down_since_{};
  TimePoint last_publish_{};
  Status down_reason_;  // guarded by mutex_
  EngineStats counters_;

  std::thread thread_;
};

}  // namespace lamina
