// Metrics: counters and histograms of HTTP calls and generations, and the text of /metrics, which
// adds what the engine and the operating system know at that moment. `vllm:` names have vLLM's
// meaning, so that its dashboards work; `lamina:` names are ours. Internally locked.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"

namespace lamina::server {

class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `handler` is a route's name and `method` a known one: labels have few values.
  void count_http(std::string_view handler, std::string_view method, int status, double seconds);
  void count_parameters(int32_t n, int32_t max_tokens, int64_t num_prompt_tokens);

  // Everything in Prometheus' text format.
  [[nodiscard]] std::string text(const EngineStats& stats, bool is_healthy) const;

 private:
  friend class CallMetrics;
  struct Families;
  std::unique_ptr<Families> families_;
};

// Times one API call from its arrival, choice by choice, as its events come out. Choices that have
// not ended when it goes count as aborted. Confined to one thread; the Metrics outlive it.
class CallMetrics {
 public:
  CallMetrics(Metrics& metrics, TimePoint arrival, int32_t n, int32_t num_prompts);
  ~CallMetrics();
  CallMetrics(const CallMetrics&) = delete;
  CallMetrics& operator=(const CallMetrics&) = delete;

  void add(int32_t prompt_idx, TimePoint when, const GenerationDelta& delta);
  // The choices that are still open end in an error.
  void fail();

 private:
  struct Choice {
    TimePoint first_token, last_token;
    int64_t num_tokens = 0;
    bool is_finished = false;
  };
  void finish_open_choices(const char* reason);

  Metrics& metrics_;
  TimePoint arrival_;
  int32_t n_;
  std::vector<Choice> choices_;
};

}  // namespace lamina::server
