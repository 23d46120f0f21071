// Lower bounds of a decoding step's parts (PAPER 13): what a model has to read and compute, over
// what devices were measured to do. Arithmetic only.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lamina {

struct DeviceRates {
  double read_bytes_per_s = 0;
  double flop_per_s = 0;
};

// Of a model, over all slices and layers.
struct DecodeWork {
  double weight_bytes = 0;
  double flop_per_token = 0;
  double kv_bytes_per_position = 0;  // of one sequence
};

// T_m of a micro-batch of `num_tokens` sequences on one replica, in seconds; 0: no rates.
inline double model_bound_s(const DecodeWork& work, const DeviceRates& rates, double num_tokens) {
  if (rates.read_bytes_per_s <= 0 || rates.flop_per_s <= 0) return 0;
  return std::max(work.weight_bytes / rates.read_bytes_per_s,
                  work.flop_per_token * num_tokens / rates.flop_per_s);
}

// T_a of a micro-batch with so many cached positions, over workers that attend to so many KV bytes
// a second together, in seconds; 0: no rate.
inline double attention_bound_s(const DecodeWork& work,
                                double kv_bytes_per_s,
                                double num_positions) {
  return kv_bytes_per_s <= 0 ? 0 : work.kv_bytes_per_position * num_positions / kv_bytes_per_s;
}

}  // namespace lamina
