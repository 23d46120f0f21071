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

struct PipelineMetric {
  const char* name;
  const char* help;
  double (*value)(const PipelineStats&);
};

// Times are of one decoding step of one micro-batch, over all layers.
constexpr PipelineMetric kPipelineMetrics[] = {
    {"lamina:micro_batches",
     "Micro-batches in flight.",
     [](const PipelineStats& s) { return real(s.num_micro_batches); }},
    {"lamina:decode_step_seconds",
     "Time of a decoding step.",
     [](const PipelineStats& s) { return s.step_seconds; }},
    {"lamina:decode_step_bound_seconds",
     "The least that the measured model, attention and wire times allow.",
     [](const PipelineStats& s) { return s.bound_seconds; }},
    {"lamina:decode_model_seconds",
     "A decoding step's time in slices.",
     [](const PipelineStats& s) { return s.model_seconds; }},
    {"lamina:decode_attention_seconds",
     "A decoding step's attention, the slowest worker's of each layer.",
     [](const PipelineStats& s) { return s.attention_seconds; }},
    {"lamina:decode_model_bound_seconds",
     "The least that reading the weights or computing the products takes; 0: not known.",
     [](const PipelineStats& s) { return s.model_bound_seconds; }},
    {"lamina:decode_attention_bound_seconds",
     "The least that reading keys and values takes; 0: not known.",
     [](const PipelineStats& s) { return s.attention_bound_seconds; }},
    {"lamina:decode_wire_seconds",
     "A decoding step's k and v on their way there and outputs back; 0: not known.",
     [](const PipelineStats& s) { return s.wire_seconds; }},
    {"lamina:model_idle_share",
     "Share of the replicas' time without a slice, while steps are under way.",
     [](const PipelineStats& s) { return s.model_idle; }},
    {"lamina:attention_idle_share",
     "Share of the attention workers' time without attention, while steps are under way.",
     [](const PipelineStats& s) { return s.attention_idle; }},
    {"lamina:sequence_imbalance",
     "Largest over mean micro-batch, in sequences.",
     [](const PipelineStats& s) { return s.sequence_imbalance; }},
    {"lamina:context_imbalance",
     "Largest over mean micro-batch, in context tokens.",
     [](const PipelineStats& s) { return s.context_imbalance; }},
};

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
  counter("lamina:host_seconds_total",
          "CPU time of the model worker's threads that say what devices are to do.",
          stats.host_seconds);
  gauge("lamina:seconds_since_progress",
        "Since the last step, 0 when idle.",
        stats.seconds_since_progress);
  for (const PipelineMetric& metric : kPipelineMetrics) {
    gauge(metric.name, metric.help, metric.value(stats.pipeline));
  }
  if (stats.workers.empty()) return families;
  for (const WorkerMetric& metric : kWorkerMetrics) {
    families.push_back(worker_family(metric, stats, labels));
  }
  return families;
}

}  // namespace lamina::server
