#include "server/engine_metrics.h"

#include <functional>

namespace lamina::server {

namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;
using Worker = EngineStats::Worker;

template <typename T>
double real(T value) {
  return static_cast<double>(value);
}

struct WorkerMetric {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const Worker&);
};

constexpr WorkerMetric kWorkerMetrics[] = {
    {"lamina:worker_up",
     "1 if the attention worker is up.",
     MetricType::Gauge,
     [](const Worker& w) { return w.state == "up" ? 1.0 : 0.0; }},
    {"lamina:worker_epoch",
     "The worker's incarnation.",
     MetricType::Gauge,
     [](const Worker& w) { return real(w.epoch); }},
    {"lamina:worker_kv_heads",
     "KV heads' worth of the cache that the worker holds.",
     MetricType::Gauge,
     [](const Worker& w) { return w.num_kv_heads; }},
    {"lamina:worker_restarts_total",
     "Times the worker came back.",
     MetricType::Counter,
     [](const Worker& w) { return real(w.num_restarts); }},
    {"lamina:worker_attention_seconds_total",
     "Time the worker spent in attention.",
     MetricType::Counter,
     [](const Worker& w) { return w.attention_seconds; }},
    {"lamina:worker_bytes_sent_total",
     "Bytes sent to the worker.",
     MetricType::Counter,
     [](const Worker& w) { return real(w.bytes_sent); }},
    {"lamina:worker_bytes_received_total",
     "Bytes received from the worker.",
     MetricType::Counter,
     [](const Worker& w) { return real(w.bytes_received); }},
};

MetricFamily worker_family(const WorkerMetric& metric,
                           const EngineStats& stats,
                           const prometheus::Labels& labels) {
  MetricFamily family = make_family(metric.name, metric.help, metric.type);
  for (const Worker& worker : stats.workers) {
    prometheus::Labels worker_labels = labels;
    worker_labels["worker"] = worker.name;
    add_value(&family, worker_labels, metric.value(worker));
  }
  return family;
}

double block_usage(const EngineStats& stats) {
  return stats.num_blocks > 0 ? real(stats.num_blocks_used) / real(stats.num_blocks) : 0.0;
}

}  // namespace

MetricFamily make_family(const char* name, const char* help, MetricType type) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void add_value(MetricFamily* family, const prometheus::Labels& labels, double value) {
  prometheus::ClientMetric metric;
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  if (family->type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family->metric.push_back(std::move(metric));
}

std::vector<MetricFamily> collect_engine_metrics(const EngineStats& stats,
                                                 bool is_healthy,
                                                 const prometheus::Labels& labels) {
  std::vector<MetricFamily> families;
  const auto add = [&](const char* name, const char* help, MetricType type, double value) {
    families.push_back(make_family(name, help, type));
    add_value(&families.back(), labels, value);
  };
  const auto gauge = [&](const char* name, const char* help, double value) {
    add(name, help, MetricType::Gauge, value);
  };
  const auto counter = [&](const char* name, const char* help, double value) {
    add(name, help, MetricType::Counter, value);
  };
  gauge("vllm:num_requests_running", "Sequences in the running batch.", real(stats.num_running));
  gauge("vllm:num_requests_waiting", "Sequences that wait.", real(stats.num_waiting));
  gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", block_usage(stats));
  gauge("vllm:engine_healthy", "1 if the engine serves.", is_healthy ? 1 : 0);
  counter("vllm:num_preemptions_total", "Preemptions.", real(stats.num_preemptions));
  counter("vllm:prompt_tokens_total", "Prompt tokens processed.", real(stats.num_prompt_tokens));
  counter("vllm:generation_tokens_total", "Tokens generated.", real(stats.num_generated_tokens));
  gauge("lamina:kv_blocks", "KV blocks.", real(stats.num_blocks));
  gauge("lamina:kv_blocks_used", "KV blocks in use.", real(stats.num_blocks_used));
  counter("lamina:steps_total", "Steps run.", real(stats.num_steps));
  counter("lamina:model_seconds_total", "Time in slices.", stats.model_seconds);
  counter("lamina:attention_wait_seconds_total",
          "Time the model worker waited for attention.",
          stats.attention_wait_seconds);
  gauge("lamina:seconds_since_progress",
        "Since the last step, 0 when idle.",
        stats.seconds_since_progress);
  if (stats.workers.empty()) return families;
  for (const WorkerMetric& metric : kWorkerMetrics) {
    families.push_back(worker_family(metric, stats, labels));
  }
  return families;
}

}  // namespace lamina::server
