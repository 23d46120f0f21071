// PipelineMeter: what slices, attention and the wire take, as the replicas of a model see it: for
// metrics, and for choosing how many micro-batches to keep in flight. Filled by the replicas'
// threads, taken by the engine's.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/clock.h"

namespace lamina {

// y = intercept + slope x by least squares over what was added.
struct LineFit {
  double count = 0, x = 0, y = 0, xx = 0, xy = 0;  // sums

  void add(double at, double value);
  void add(const LineFit& other);
  void fade(double factor);  // what was added before counts less by this factor
  [[nodiscard]] double mean() const { return count > 0 ? y / count : 0; }
  // Neither part below zero; all of it intercept where the x do not differ.
  [[nodiscard]] double slope() const;
  [[nodiscard]] double intercept() const;
};

// Since the last take(). "Decoding": steps in which every sequence brings one token.
struct PipelineSample {
  double slice_s = 0;        // replicas' time in slices
  LineFit decode_slices;     // of decoding steps: tokens -> seconds
  uint64_t num_layers = 0;   // of decoding steps
  double attention_s = 0;    // their slowest worker's time, summed
  double worker_busy_s = 0;  // all workers' time in attention, all steps
  double wire_s = 0;         // shortest round trip, less the attention in it; 0: none was seen
};

class PipelineMeter {
 public:
  void add_slice(bool decodes, int64_t num_tokens, Duration time);
  // One layer's attention: the slowest worker's time, and the sum over all.
  void add_attention(bool decodes, Duration slowest, Duration sum);
  // From q's leaving to the output's arrival, less the attention between.
  void add_wire(Duration time);
  PipelineSample take();

 private:
  std::mutex mutex_;
  PipelineSample sample_;
};

}  // namespace lamina
