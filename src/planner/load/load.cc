#include "planner/load/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace lamina::planner {

Load mean_load(std::string name, double mean_prompt, double mean_generated) {
  Load load;
  load.name = std::move(name);
  load.mean_prompt = mean_prompt;
  load.mean_generated = mean_generated;
  load.context = mean_prompt + mean_generated / 2;
  load.longest = mean_prompt + mean_generated;
  return load;
}

Load load_of(std::string name, std::vector<LoadRequest> requests) {
  LAMINA_CHECK(!requests.empty());
  Load load;
  load.name = std::move(name);
  double prompt = 0;
  double generated = 0;
  double positions = 0;
  for (const LoadRequest& request : requests) {
    prompt += request.num_prompt_tokens;
    generated += request.num_generated_tokens;
    positions += request.num_generated_tokens *
                 (request.num_prompt_tokens + 0.5 * request.num_generated_tokens);
    load.longest =
        std::max<double>(load.longest, request.num_prompt_tokens + request.num_generated_tokens);
  }
  const auto count = static_cast<double>(requests.size());
  load.mean_prompt = prompt / count;
  load.mean_generated = generated / count;
  load.context = positions / generated;
  const double span_s = requests.back().arrives_s;
  load.requests_per_s = span_s > 0 ? (count - 1) / span_s : 0;
  load.requests = std::move(requests);
  return load;
}

Load draw_load(const DrawnLoad& drawn) {
  Rng rng(drawn.seed);
  std::vector<LoadRequest> requests;
  requests.reserve(static_cast<size_t>(drawn.num_requests));
  double now_s = 0;
  for (int32_t i = 0; i < drawn.num_requests; ++i) {
    if (drawn.requests_per_s > 0 && i > 0) {
      now_s += -std::log(1.0 - rng.next_double()) / drawn.requests_per_s;
    }
    const int32_t prompt = drawn.prompt.draw(rng);
    requests.push_back({now_s, prompt, drawn.generated.draw(rng)});
  }
  Load load = load_of(fmt::format("prompt {}, generated {}, seed {}",
                                  drawn.prompt.text(),
                                  drawn.generated.text(),
                                  drawn.seed),
                      std::move(requests));
  load.requests_per_s = drawn.requests_per_s;
  return load;
}

Load with_rate(Load load, double requests_per_s) {
  const double factor =
      requests_per_s > 0 && load.requests_per_s > 0 ? load.requests_per_s / requests_per_s : 0;
  for (LoadRequest& request : load.requests) request.arrives_s *= factor;
  load.requests_per_s = requests_per_s;
  return load;
}

}  // namespace lamina::planner
