#include "kernels/sample.h"

#include <algorithm>
#include <cstring>

#include "base/rng.h"
#include "device/cuda/error.h"
#include "device/cuda/stream.h"
#include "kernels/cuda/carver.h"
#include "kernels/cuda/operators.h"
#include "kernels/cuda/sampling/sample_launch.h"
#include "kernels/cuda/workspace.h"

namespace lamina::kernels::cuda {
namespace {

// What a step's rows ask for, in the form that the device takes. Sizes are remembered, so a step
// allocates nothing once it has seen the largest.
struct Requests {
  std::vector<SamplingRow> rows;
  std::vector<PenalizedId> penalties;
  std::vector<BiasedId> biases;
  std::vector<int32_t> forbidden;
  std::vector<int32_t> places;  // one an id, all zero between rows: place in penalties, plus one
  int32_t max_top = 0;

  void clear(size_t vocab_size) {
    rows.clear();
    penalties.clear();
    biases.clear();
    forbidden.clear();
    if (places.size() < vocab_size) places.resize(vocab_size, 0);
    max_top = 0;
  }
};

template <typename T>
IdRange range_from(size_t begin, const std::vector<T>& all) {
  return {static_cast<int32_t>(begin), static_cast<int32_t>(all.size() - begin)};
}

// Each id once, with how often it was generated.
IdRange add_penalties(const SampleRow& row, Requests& requests) {
  const size_t begin = requests.penalties.size();
  const auto add = [&](int32_t id, int32_t count) {
    int32_t& place = requests.places[static_cast<size_t>(id)];
    if (place == 0) {
      requests.penalties.push_back({id, 0});
      place = static_cast<int32_t>(requests.penalties.size());
    }
    requests.penalties[static_cast<size_t>(place) - 1].count += count;
  };
  if (row.penalizes_prompt()) {
    for (const int32_t id : row.prompt_ids) add(id, 0);
  }
  if (row.penalizes_generated()) {
    for (const int32_t id : row.generated_ids) add(id, 1);
  }
  for (size_t i = begin; i < requests.penalties.size(); ++i) {
    requests.places[static_cast<size_t>(requests.penalties[i].id)] = 0;
  }
  return range_from(begin, requests.penalties);
}

void add_row(const SampleRow& row, int32_t vocab_size, Requests& requests) {
  SamplingRow made = {.draw = Rng(row.seed, row.generated_ids.size()).next_double(),
                      .temperature = row.temperature,
                      .top_p = row.top_p,
                      .min_p = row.min_p,
                      .presence_penalty = row.presence_penalty,
                      .frequency_penalty = row.frequency_penalty,
                      .repetition_penalty = row.repetition_penalty,
                      .top_k = row.top_k,
                      .num_top = std::min(row.num_logprobs, vocab_size)};
  made.penalties = add_penalties(row, requests);
  const size_t first_bias = requests.biases.size();
  for (const auto& [id, bias] : row.logit_bias) requests.biases.push_back({id, bias});
  made.biases = range_from(first_bias, requests.biases);
  const size_t first_forbidden = requests.forbidden.size();
  requests.forbidden.insert(
      requests.forbidden.end(), row.forbidden_ids.begin(), row.forbidden_ids.end());
  made.forbidden = range_from(first_forbidden, requests.forbidden);
  requests.max_top = std::max(requests.max_top, made.num_top);
  requests.rows.push_back(made);
}

// A step's memory, which host and device share: requests first, then results.
struct Layout {
  SamplingRow* rows = nullptr;
  PenalizedId* penalties = nullptr;
  BiasedId* biases = nullptr;
  int32_t* forbidden = nullptr;
  SamplingResult* results = nullptr;  // [S]
  SamplingResult* tops = nullptr;     // [S, max_top]
  size_t size_bytes = 0;

  Layout(const Requests& requests, std::byte* memory) {
    Carver carver(memory);
    const auto num_rows = static_cast<int64_t>(requests.rows.size());
    rows = carver.take<SamplingRow>(num_rows);
    penalties = carver.take<PenalizedId>(static_cast<int64_t>(requests.penalties.size()));
    biases = carver.take<BiasedId>(static_cast<int64_t>(requests.biases.size()));
    forbidden = carver.take<int32_t>(static_cast<int64_t>(requests.forbidden.size()));
    results = carver.take<SamplingResult>(num_rows);
    tops = carver.take<SamplingResult>(num_rows * requests.max_top);
    size_bytes = carver.size_bytes();
  }
};

template <typename T>
void write(const std::vector<T>& values, T* to) {
  if (!values.empty()) std::memcpy(to, values.data(), values.size() * sizeof(T));
}

void read_results(const Requests& requests, const Layout& shared, std::span<SampledToken> out) {
  for (size_t s = 0; s < out.size(); ++s) {
    const SamplingResult& result = shared.results[s];
    SampledToken& token = out[s];
    token = {.id = result.id, .logprob = result.logprob};
    if (token.id == kNoToken || requests.rows[s].num_top <= 0) continue;
    const SamplingResult* tops = shared.tops + s * static_cast<size_t>(requests.max_top);
    for (int32_t n = 0; n < requests.rows[s].num_top; ++n) {
      token.top_logprobs.push_back({tops[n].id, tops[n].logprob});
    }
  }
}

// The device reads requests from the host's memory and writes results there: copies would take both
// longer. Waits for it.
Status run(const TensorView& logits,
           const Requests& requests,
           std::span<SampledToken> out,
           StreamView stream) {
  const size_t size_bytes = Layout(requests, nullptr).size_bytes;
  LAMINA_ASSIGN_OR_RETURN(std::byte* const memory,
                          workspace(stream, WorkspaceUse::kSampling, size_bytes));
  const Layout shared(requests, memory);
  write(requests.rows, shared.rows);
  write(requests.penalties, shared.penalties);
  write(requests.biases, shared.biases);
  write(requests.forbidden, shared.forbidden);
  const SamplingParams params = {.logits = logits.as<float>(),
                                 .rows = shared.rows,
                                 .penalties = shared.penalties,
                                 .biases = shared.biases,
                                 .forbidden = shared.forbidden,
                                 .results = shared.results,
                                 .tops = shared.tops,
                                 .logits_stride = logits.row_stride,
                                 .num_rows = static_cast<int32_t>(requests.rows.size()),
                                 .vocab_size = static_cast<int32_t>(logits.shape[1]),
                                 .max_top = requests.max_top};
  LAMINA_RETURN_IF_ERROR(lamina::cuda::to_status(launch_sampling(params, lamina::cuda::raw(stream)),
                                                 "sampling on a GPU"));
  LAMINA_RETURN_IF_ERROR(synchronize(stream));
  read_results(requests, shared, out);
  return {};
}

Requests& thread_requests(size_t vocab_size) {
  thread_local Requests requests;
  requests.clear(vocab_size);
  return requests;
}

}  // namespace

Status sample(TensorView logits,
              std::span<const SampleRow> rows,
              std::span<SampledToken> out,
              StreamView stream) {
  if (rows.empty()) return {};
  Requests& requests = thread_requests(static_cast<size_t>(logits.shape[1]));
  for (const SampleRow& row : rows) {
    add_row(row, static_cast<int32_t>(logits.shape[1]), requests);
  }
  return run(logits, requests, out, stream);
}

Status log_probabilities(TensorView logits,
                         std::span<const int32_t> targets,
                         int32_t num_top,
                         std::span<SampledToken> out,
                         StreamView stream) {
  if (targets.empty()) return {};
  Requests& requests = thread_requests(0);
  requests.max_top = std::min(num_top, static_cast<int32_t>(logits.shape[1]));
  for (const int32_t target : targets) {
    requests.rows.push_back({.num_top = requests.max_top, .target = target});
  }
  return run(logits, requests, out, stream);
}

}  // namespace lamina::kernels::cuda
