// The part of /metrics that comes from the engine: a snapshot of EngineStats as Prometheus
// families. Used by metrics.cc. Pure.
#pragma once

#include <prometheus/labels.h>
#include <prometheus/metric_family.h>

#include <vector>

#include "engine/engine.h"

namespace lamina::server {

std::vector<prometheus::MetricFamily> collect_engine_metrics(const EngineStats& stats,
                                                             bool is_healthy,
                                                             const prometheus::Labels& labels);

// A family with one value and no labels; helpers for snapshots.
prometheus::MetricFamily make_family(const char* name,
                                     const char* help,
                                     prometheus::MetricType type);
void add_value(prometheus::MetricFamily* family, const prometheus::Labels& labels, double value);

}  // namespace lamina::server
