#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "server/engine_metrics.h"
#include "server/process_stats.h"

namespace lamina::server {

namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

Buckets first_token_buckets() {
  return {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
          1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
}
Buckets token_gap_buckets() {
  return {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
          .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80};
}
Buckets request_buckets() {
  return {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}
Buckets http_buckets() {
  return {.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1200};
}
// 1, 2, 5, 10 ... 500'000
Buckets token_count_buckets() {
  Buckets buckets;
  for (double decade = 1; decade <= 100'000; decade *= 10) {
    for (const double digit : {1.0, 2.0, 5.0}) buckets.push_back(digit * decade);
  }
  return buckets;
}

double seconds_between(TimePoint start, TimePoint end) {
  return std::chrono::duration<double>(end - start).count();
}

}  // namespace

struct Metrics::Families {
  explicit Families(const std::string& model_name)
      : labels{{"model_name", model_name}, {"engine", "0"}},
        time_to_first_token(histogram("vllm:time_to_first_token_seconds",
                                      "From a request's arrival to its first token.",
                                      first_token_buckets())),
        inter_token_latency(histogram("vllm:inter_token_latency_seconds",
                                      "Between two successive outputs of a choice.",
                                      token_gap_buckets())),
        time_per_output_token(histogram("vllm:request_time_per_output_token_seconds",
                                        "Mean time per token after the first, by choice.",
                                        token_gap_buckets())),
        e2e_latency(histogram("vllm:e2e_request_latency_seconds",
                              "From a request's arrival to the end of a choice.",
                              request_buckets())),
        prompt_tokens(histogram(
            "vllm:request_prompt_tokens", "Prompt tokens of a request.", token_count_buckets())),
        generation_tokens(histogram("vllm:request_generation_tokens",
                                    "Generated tokens of a choice.",
                                    token_count_buckets())),
        params_n(histogram(
            "vllm:request_params_n", "The parameter n of requests.", {1, 2, 5, 10, 20, 50, 64})),
        params_max_tokens(histogram("vllm:request_params_max_tokens",
                                    "The parameter max_tokens of requests.",
                                    token_count_buckets())),
        request_success(prometheus::BuildCounter()
                            .Name("vllm:request_success_total")
                            .Help("Choices that ended, by reason.")
                            .Labels(labels)
                            .Register(registry)),
        http_requests(prometheus::BuildCounter()
                          .Name("http_requests_total")
                          .Help("HTTP requests answered.")
                          .Register(registry)),
        http_duration(prometheus::BuildHistogram()
                          .Name("http_request_duration_seconds")
                          .Help("From an HTTP request's header to the end of its answer.")
                          .Register(registry)) {
    // Rates over counters need them to be there, at 0, from the start.
    for (const char* reason : {"stop", "length", "abort", "error"}) {
      request_success.Add({{"finished_reason", reason}});
    }
  }

  prometheus::Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Labels(labels).Register(registry).Add(
        {}, buckets);
  }
  void count_finish(const char* reason) {
    request_success.Add({{"finished_reason", reason}}).Increment();
  }

  prometheus::Registry registry;
  prometheus::Labels labels;
  prometheus::Histogram& time_to_first_token;
  prometheus::Histogram& inter_token_latency;
  prometheus::Histogram& time_per_output_token;
  prometheus::Histogram& e2e_latency;
  prometheus::Histogram& prompt_tokens;
  prometheus::Histogram& generation_tokens;
  prometheus::Histogram& params_n;
  prometheus::Histogram& params_max_tokens;
  prometheus::Family<prometheus::Counter>& request_success;
  prometheus::Family<prometheus::Counter>& http_requests;
  prometheus::Family<prometheus::Histogram>& http_duration;
};

Metrics::Metrics(const std::string& model_name)
    : families_(std::make_unique<Families>(model_name)) {}

Metrics::~Metrics() = default;

void Metrics::count_http(std::string_view handler,
                         std::string_view method,
                         int status,
                         double seconds) {
  const std::string handler_label(handler);
  families_->http_requests
      .Add({{"handler", handler_label},
            {"method", std::string(method)},
            {"status", std::to_string(status)}})
      .Increment();
  families_->http_duration.Add({{"handler", handler_label}}, http_buckets()).Observe(seconds);
}

void Metrics::count_parameters(int32_t n, int32_t max_tokens, int64_t num_prompt_tokens) {
  families_->params_n.Observe(n);
  families_->params_max_tokens.Observe(max_tokens);
  families_->prompt_tokens.Observe(static_cast<double>(num_prompt_tokens));
}

std::string Metrics::text(const EngineStats& stats, bool is_healthy) const {
  std::vector<prometheus::MetricFamily> all = families_->registry.Collect();
  for (auto& family : collect_engine_metrics(stats, is_healthy, families_->labels)) {
    all.push_back(std::move(family));
  }
  for (auto& family : collect_process_metrics()) all.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(all);
}

CallMetrics::CallMetrics(Metrics& metrics, TimePoint arrival, int32_t n, int32_t num_prompts)
    : metrics_(metrics),
      arrival_(arrival),
      n_(n),
      choices_(static_cast<size_t>(n) * static_cast<size_t>(num_prompts)) {}

CallMetrics::~CallMetrics() {
  finish_open_choices("abort");
}

void CallMetrics::add(int32_t prompt_idx, TimePoint when, const GenerationDelta& delta) {
  Choice& choice = choices_.at(static_cast<size_t>(prompt_idx) * static_cast<size_t>(n_) +
                               static_cast<size_t>(delta.choice_idx));
  Metrics::Families& families = *metrics_.families_;
  if (!delta.tokens.empty()) {
    if (choice.num_tokens == 0) {
      choice.first_token = when;
      families.time_to_first_token.Observe(seconds_between(arrival_, when));
    } else {
      families.inter_token_latency.Observe(seconds_between(choice.last_token, when));
    }
    choice.last_token = when;
    choice.num_tokens += static_cast<int64_t>(delta.tokens.size());
  }
  if (!delta.finish_reason) return;
  choice.is_finished = true;
  families.count_finish(*delta.finish_reason == FinishReason::kStop ? "stop" : "length");
  families.e2e_latency.Observe(seconds_between(arrival_, when));
  families.generation_tokens.Observe(static_cast<double>(choice.num_tokens));
  if (choice.num_tokens > 1) {
    families.time_per_output_token.Observe(seconds_between(choice.first_token, choice.last_token) /
                                           static_cast<double>(choice.num_tokens - 1));
  }
}

void CallMetrics::fail() {
  finish_open_choices("error");
}

void CallMetrics::finish_open_choices(const char* reason) {
  for (Choice& choice : choices_) {
    if (!std::exchange(choice.is_finished, true)) metrics_.families_->count_finish(reason);
  }
}

}  // namespace lamina::server
