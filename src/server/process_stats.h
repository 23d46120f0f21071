// The process_* part of /metrics: memory, descriptors and processor time of this process, from
// /proc. Used by metrics.cc. Thread-safe.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

namespace lamina::server {

// What cannot be read is left out.
std::vector<prometheus::MetricFamily> collect_process_metrics();

}  // namespace lamina::server
