// PipelineMeter: what slices, attention and the wire take, as the replicas of a model see it: for
// metrics, and for choosing how many micro-batches to keep in flight. Filled by the replicas'
// threads, taken by the engine's.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

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

// When a layer's tensors left for the attention workers.
struct SendTimes {
  int32_t layer = -1;
  TimePoint q{};
  TimePoint kv{};
};

// Since the last take(). "Decoding": steps in which every sequence brings one token.
struct PipelineSample {
  double slice_s = 0;  // replicas' time in slices
  double lead_s = 0;   // of decoding steps: until q left, in num_leads slices that sent one
  uint64_t num_leads = 0;
  LineFit decode_slices;     // of decoding steps: tokens -> seconds
  uint64_t num_layers = 0;   // of decoding steps
  double attention_s = 0;    // their slowest worker's time, summed
  double rest_s = 0;         // of it, after k and v were there
  double worker_busy_s = 0;  // all workers' time in attention, all steps
  // The shortest way of q, or of k and v, there and of the output back, where nobody had anything
  // else to do meanwhile; 0: none was seen.
  double wire_s = 0;
};

class PipelineMeter {
 public:
  // `lead`: until q left, if this slice sent one.
  void add_slice(bool decodes, int64_t num_tokens, Duration time, std::optional<Duration> lead);
  // One layer's attention: the slowest worker's time, what of it came after k and v, and the time
  // of all workers.
  void add_attention(bool decodes, Duration slowest, Duration rest, Duration sum);
  void add_wire(Duration time);
  PipelineSample take();

  // The slice before a layer may run on one replica and the slice after it on another: what the one
  // notes of a micro-batch's layer the other may ask for. noted_sends(): of the last layer noted.
  void note_q(int32_t micro_batch, int32_t layer, TimePoint time);
  void note_kv(int32_t micro_batch, TimePoint time);
  [[nodiscard]] SendTimes noted_sends(int32_t micro_batch) const;

 private:
  static constexpr size_t kMaxMicroBatches = 16;

  mutable std::mutex mutex_;
  PipelineSample sample_;
  std::array<SendTimes, kMaxMicroBatches> sends_;
};

}  // namespace lamina
