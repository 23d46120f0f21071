#include "worker/pipeline_meter.h"

#include <algorithm>
#include <utility>

namespace lamina {
namespace {

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

void LineFit::add(double at, double value) {
  add({.count = 1, .x = at, .y = value, .xx = at * at, .xy = at * value});
}

void LineFit::add(const LineFit& other) {
  count += other.count;
  x += other.x;
  y += other.y;
  xx += other.xx;
  xy += other.xy;
}

void LineFit::fade(double factor) {
  for (double* sum : {&count, &x, &y, &xx, &xy}) *sum *= factor;
}

double LineFit::slope() const {
  const double spread = count * xx - x * x;
  // Batches that differ by less than a tenth say nothing of a slope.
  if (count < 2 || spread < 0.01 * x * x) return 0;
  return std::clamp((count * xy - x * y) / spread, 0.0, x > 0 ? y / x : 0.0);
}

double LineFit::intercept() const {
  return count > 0 ? std::max(0.0, (y - slope() * x) / count) : 0;
}

void PipelineMeter::add_slice(bool decodes,
                              int64_t num_tokens,
                              Duration time,
                              std::optional<Duration> lead) {
  const std::lock_guard lock(mutex_);
  sample_.slice_s += seconds(time);
  if (!decodes) return;
  sample_.decode_slices.add(static_cast<double>(num_tokens), seconds(time));
  if (!lead) return;
  sample_.lead_s += seconds(*lead);
  ++sample_.num_leads;
}

void PipelineMeter::add_attention(bool decodes, Duration slowest, Duration rest, Duration sum) {
  const std::lock_guard lock(mutex_);
  sample_.worker_busy_s += seconds(sum);
  if (!decodes) return;
  ++sample_.num_layers;
  sample_.attention_s += seconds(slowest);
  sample_.rest_s += seconds(rest);
}

void PipelineMeter::add_wire(Duration time) {
  const double wire_s = std::max(seconds(time), 1e-9);
  const std::lock_guard lock(mutex_);
  sample_.wire_s = sample_.wire_s == 0 ? wire_s : std::min(sample_.wire_s, wire_s);
}

void PipelineMeter::note_q(int32_t micro_batch, int32_t layer, TimePoint time) {
  const std::lock_guard lock(mutex_);
  sends_.at(static_cast<size_t>(micro_batch)) = {.layer = layer, .q = time, .kv = time};
}

void PipelineMeter::note_kv(int32_t micro_batch, TimePoint time) {
  const std::lock_guard lock(mutex_);
  sends_.at(static_cast<size_t>(micro_batch)).kv = time;
}

SendTimes PipelineMeter::noted_sends(int32_t micro_batch) const {
  const std::lock_guard lock(mutex_);
  return sends_.at(static_cast<size_t>(micro_batch));
}

PipelineSample PipelineMeter::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(sample_, {});
}

}  // namespace lamina
