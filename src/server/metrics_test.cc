#include "server/metrics.h"

#include <gtest/gtest.h>

namespace lamina::server {
namespace {

bool has(const std::string& text, const std::string& line) {
  return text.find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, TellsWhatTheEngineCounts) {
  const Metrics metrics("tiny");
  EngineStats stats;
  stats.num_running = 3;
  stats.num_waiting = 2;
  stats.num_blocks = 8;
  stats.num_blocks_used = 2;
  stats.num_preemptions = 5;
  stats.num_prompt_tokens = 70;
  stats.num_generated_tokens = 90;
  stats.workers.push_back({"10.0.0.1:7", "up", 4, 1, 2, 0.5, 100, 200});
  stats.workers.push_back({"10.0.0.2:7", "down", 1, 0, 1, 0.0, 0, 0});
  const std::string text = metrics.text(stats, true);
  const std::string labels = R"({engine="0",model_name="tiny"} )";
  EXPECT_TRUE(has(text, "vllm:num_requests_running" + labels + "3")) << text;
  EXPECT_TRUE(has(text, "vllm:num_requests_waiting" + labels + "2"));
  EXPECT_TRUE(has(text, "vllm:kv_cache_usage_perc" + labels + "0.25"));
  EXPECT_TRUE(has(text, "vllm:num_preemptions_total" + labels + "5"));
  EXPECT_TRUE(has(text, "vllm:prompt_tokens_total" + labels + "70"));
  EXPECT_TRUE(has(text, "vllm:generation_tokens_total" + labels + "90"));
  EXPECT_TRUE(has(text, "# TYPE vllm:generation_tokens_total counter"));
  EXPECT_TRUE(has(text, "vllm:engine_healthy" + labels + "1"));
  const std::string up = R"({engine="0",model_name="tiny",worker="10.0.0.1:7"} )";
  EXPECT_TRUE(has(text, "lamina:worker_up" + up + "1"));
  EXPECT_TRUE(has(text, "lamina:worker_restarts_total" + up + "1"));
  EXPECT_TRUE(has(text, "lamina:worker_bytes_received_total" + up + "200"));
  EXPECT_TRUE(has(text, R"(lamina:worker_up{engine="0",model_name="tiny",worker="10.0.0.2:7"} 0)"));
  for (const char* name : {"process_resident_memory_bytes ",
                           "process_open_fds ",
                           "process_cpu_seconds_total ",
                           "process_start_time_seconds "}) {
    const size_t at = text.find(std::string("\n") + name);
    ASSERT_NE(at, std::string::npos) << name;
    EXPECT_GT(std::stod(text.substr(text.find(' ', at + 1))), 0) << name;
  }
}

TEST(Metrics, TimesChoicesByTheEnginesClock) {
  Metrics metrics("tiny");
  const TimePoint start{};
  const auto at = [&](int ms) { return start + std::chrono::milliseconds(ms); };
  {
    CallMetrics call(metrics, start, 2, 1);
    GenerationDelta delta;
    delta.tokens.resize(1);
    call.add(0, at(125), delta);
    call.add(0, at(250), delta);
    delta.finish_reason = FinishReason::kStop;
    call.add(0, at(500), delta);
  }  // The second choice never ended.
  const std::string text = metrics.text({}, false);
  const std::string labels = R"({engine="0",model_name="tiny"} )";
  EXPECT_TRUE(has(text, "vllm:time_to_first_token_seconds_sum" + labels + "0.125")) << text;
  EXPECT_TRUE(has(text, "vllm:inter_token_latency_seconds_count" + labels + "2"));
  EXPECT_TRUE(has(text, "vllm:inter_token_latency_seconds_sum" + labels + "0.375"));
  EXPECT_TRUE(has(text, "vllm:e2e_request_latency_seconds_sum" + labels + "0.5"));
  EXPECT_TRUE(has(text, "vllm:request_generation_tokens_sum" + labels + "3"));
  const auto reason = [](const char* name, int count) {
    return std::string(
               "vllm:request_success_total{engine=\"0\",model_name=\"tiny\",finished_reason=\"") +
           name + "\"} " + std::to_string(count);
  };
  EXPECT_TRUE(has(text, reason("stop", 1)));
  EXPECT_TRUE(has(text, reason("abort", 1)));
  EXPECT_TRUE(has(text, reason("error", 0)));
}

TEST(Metrics, CountsHttp) {
  Metrics metrics("tiny");
  metrics.count_http("/health", "GET", 200, 0.5);
  metrics.count_http("/health", "GET", 200, 0.5);
  const std::string text = metrics.text({}, true);
  EXPECT_TRUE(has(text, R"(http_requests_total{handler="/health",method="GET",status="200"} 2)"))
      << text;
  EXPECT_TRUE(has(text, R"(http_request_duration_seconds_sum{handler="/health"} 1)"));
}

}  // namespace
}  // namespace lamina::server
