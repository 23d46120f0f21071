// Load: what a deployment is to serve: requests with their lengths and times, recorded or drawn,
// and the means that the analytic model needs. Immutable once made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "planner/load/lengths.h"

namespace lamina::planner {

struct LoadRequest {
  double arrives_s = 0;  // since the first one
  int32_t num_prompt_tokens = 0;
  int32_t num_generated_tokens = 0;
};

struct Load {
  std::string name;
  double mean_prompt = 0;     // tokens of a request
  double mean_generated = 0;  // tokens of a request
  double context = 0;         // cached tokens of a decoding sequence, the mean over its steps
  double longest = 0;         // tokens of the longest sequence
  double requests_per_s = 0;  // 0: as many as can be served
  std::vector<LoadRequest> requests;  // in order of arrival

  [[nodiscard]] double tokens_per_s() const { return requests_per_s * mean_generated; }
};

// Means that a trace is known by, without its requests: a context of prompt + generated / 2, as
// PAPER 2 reckons (Table 4).
Load mean_load(std::string name, double mean_prompt, double mean_generated);

// Of `requests`, which have at least one. The context is the mean over all steps of decoding: long
// answers count for as long as they run.
Load load_of(std::string name, std::vector<LoadRequest> requests);

struct DrawnLoad {
  LengthDistribution prompt;
  LengthDistribution generated;
  double requests_per_s = 0;  // Poisson; 0: all at once
  int32_t num_requests = 1000;
  uint64_t seed = 0;
};
Load draw_load(const DrawnLoad& drawn);

// The same requests at another rate: gaps are stretched evenly, 0: all at once.
Load with_rate(Load load, double requests_per_s);

}  // namespace lamina::planner
