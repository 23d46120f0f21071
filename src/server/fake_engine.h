// FakeEngine: an Engine that plays scripts from a thread of its own, one event of each running
// request in turn, so that tests see what a server does with streams, refusals, failures and
// cancellation. Internally locked. For tests only.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace lamina::server {

class FakeEngine final : public Engine {
 public:
  // What happens to a request. An event may be played for ever.
  struct Script {
    std::vector<GenerationEvent> events;
    bool repeats_last = false;
  };
  using Scripter = std::function<Script(const GenerationRequest&)>;

  explicit FakeEngine(Scripter scripter);
  FakeEngine(const FakeEngine&) = delete;
  FakeEngine& operator=(const FakeEngine&) = delete;
  ~FakeEngine() override;

  Result<uint64_t> submit(GenerationRequest request, EventSink sink) override;
  void cancel(uint64_t handle) override;
  [[nodiscard]] bool is_full(int32_t num_sequences) const override;
  [[nodiscard]] Status health() const override;
  [[nodiscard]] EngineStats stats() const override;
  [[nodiscard]] int32_t max_model_len() const override { return 256; }
  void shutdown(Deadline deadline) override;

  void set_scripter(Scripter scripter);
  void set_room(int32_t num_sequences);
  void set_health(Status health);
  void set_submit_status(Status status);
  void set_stats(EngineStats stats);
  // Events played from here on, all requests together; unlimited by default.
  void set_permits(int64_t num_events);

  // Requests in the order of arrival.
  [[nodiscard]] std::vector<GenerationRequest> requests() const;
  // False after ten seconds in vain.
  [[nodiscard]] bool wait_for_requests(size_t count) const;
  [[nodiscard]] bool wait_for_cancels(size_t count) const;
  // Requests that have neither ended nor been cancelled.
  [[nodiscard]] size_t num_running() const;

 private:
  struct Running {
    Script script;
    EventSink sink;
    size_t position = 0;
  };
  void play();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Scripter scripter_;
  std::vector<GenerationRequest> requests_;
  std::map<uint64_t, Running> running_;
  size_t num_cancels_ = 0;  // of requests that ran
  uint64_t last_handle_ = 0;
  int32_t room_ = 1'000'000;
  int64_t permits_ = -1;  // -1: unlimited
  Status health_, submit_status_;
  EngineStats stats_;
  bool is_stopped_ = false;
  std::thread thread_;
};

// Choice `choice_idx` says `text`, a byte a token, whole characters only, then ends. With logprobs
// each token brings as many alternatives as the request wants.
std::vector<GenerationEvent> say(const GenerationRequest& request,
                                 int32_t choice_idx,
                                 const std::string& text,
                                 FinishReason reason = FinishReason::kStop);
// Every choice says `text`, cut at max_tokens; prompts are scored where asked for.
FakeEngine::Scripter saying(const std::string& text);
// One byte a token, until cancelled.
FakeEngine::Scripter endless();

}  // namespace lamina::server
