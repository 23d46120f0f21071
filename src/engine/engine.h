// Engine: joins scheduler and workers. Requests come in from any thread, tokens go out through each
// request's sink; one thread of its own runs the steps. Keeps every prompt and generated token.
// Detokenising and stop strings are done here, HTTP and JSON are not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "model/sampling_params.h"
#include "plan/step_plan.h"

namespace lamina {

class Tokenizer;

struct GenerationRequest {
  std::string id;                   // "cmpl-...": for logs and errors
  std::vector<int32_t> prompt_ids;  // at least one
  SamplingParams sampling;          // choice i of n samples with sampling.seed + i
  int32_t n = 1;
  int32_t max_tokens = 16;  // may be 0 (scoring a prompt)
  int32_t min_tokens = 0;   // stop ids are not sampled before
  bool ignore_eos = false;
  std::vector<int32_t> stop_ids;  // besides the model's own end-of-sequence ids
  std::vector<std::string> stop;  // stop strings; text from the match on is not emitted
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool prompt_logprobs =
      false;  // score prompt tokens with sampling.num_logprobs alternatives (echo + logprobs)
};

enum class FinishReason : uint8_t { kStop, kLength };

// Something happened to choice `choice_idx`. Text deltas of a choice, joined, are its text.
struct GenerationDelta {
  int32_t choice_idx = 0;
  std::string text;
  std::vector<ScoredToken> tokens;
  std::optional<FinishReason> finish_reason;  // set on the last delta of the choice
  std::optional<std::variant<int32_t, std::string>>
      stop_reason;  // the stop id or string that ended it
};
// Before the first delta, where prompt_logprobs was asked for: tokens 1.. of the prompt (token 0
// has no score).
struct PromptScores {
  std::vector<ScoredToken> tokens;
};
// The request ended in an error; nothing follows. Other requests are not affected.
struct GenerationFailure {
  Status status;
};
using GenerationEvent = std::variant<GenerationDelta, PromptScores, GenerationFailure>;

// Called on the engine's thread: must not block; typically posts to the server's executor. After
// the last choice's finish_reason, a GenerationFailure or cancel() returns, it is not called
// again... save for events already under way.
using EventSink = std::function<void(GenerationEvent)>;

// How the model and the attention pool were kept busy, of late. Times are of one decoding step of
// one micro-batch, over all layers.
struct PipelineStats {
  int32_t num_micro_batches = 1;  // in flight
  int32_t num_replicas = 1;
  double step_seconds = 0;       // measured; 0: none decoded
  double bound_seconds = 0;      // the least that the times below allow (PAPER 13)
  double model_seconds = 0;      // slices
  double attention_seconds = 0;  // the slowest worker's, layer by layer
  double wire_seconds = 0;       // k and v there and outputs back; 0: not known
  // The least that the devices allow (PAPER 13): weights read or products computed, and keys and
  // values read, at measured rates; 0: not known.
  double model_bound_seconds = 0;
  double attention_bound_seconds = 0;
  double model_idle = 0;          // share of the replicas' time
  double attention_idle = 0;      // share of the workers' time
  double sequence_imbalance = 1;  // largest over mean micro-batch
  double context_imbalance = 1;
};

struct EngineStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int32_t num_blocks = 0;
  int32_t num_blocks_used = 0;
  uint64_t num_preemptions = 0;
  uint64_t num_steps = 0;
  uint64_t num_prompt_tokens = 0;
  uint64_t num_generated_tokens = 0;
  double seconds_since_progress = 0;  // 0 when idle
  struct Worker {
    std::string name;   // address, or "local 0"
    std::string state;  // "up", "down", "standby", "starting"
    uint64_t epoch = 0;
    uint64_t num_restarts = 0;
    double num_kv_heads = 0;  // its share of the KV cache; a fraction where heads are split
    double attention_seconds = 0;
    uint64_t bytes_sent = 0;
    uint64_t bytes_received = 0;
    double kv_bytes_per_second = 0;  // at which it attends to cached keys; 0: not measured
  };
  std::vector<Worker> workers;
  PipelineStats pipeline;
  double model_seconds = 0;           // time in slices, all steps
  double attention_wait_seconds = 0;  // time the model worker waited for attention
  double host_seconds = 0;  // CPU time of its threads, waiting for GPUs and others left out
};

// What a server needs of an engine; faked in the server's tests.
class Engine {
 public:
  virtual ~Engine() = default;

  // Queues a request and returns its handle. Any thread; does not block on steps. Errors:
  // kInvalidArgument (empty prompt, prompt + max_tokens over max_model_len, bad sampling),
  // kResourceExhausted (the bounded queue is full), kUnavailable (no attention worker, or shutting
  // down).
  virtual Result<uint64_t> submit(GenerationRequest request, EventSink sink) = 0;
  // Ends a request; its blocks are free before the next step. Unknown or finished handles are
  // ignored. Any thread.
  virtual void cancel(uint64_t handle) = 0;
  // True while a submit() of `num_sequences` would be refused for lack of room: asked before
  // tokenizing.
  [[nodiscard]] virtual bool is_full(int32_t num_sequences) const = 0;
  // Ok when ready to serve and making progress; else why not.
  [[nodiscard]] virtual Status health() const = 0;
  [[nodiscard]] virtual EngineStats stats() const = 0;
  [[nodiscard]] virtual int32_t max_model_len() const = 0;
  // Finishes running requests until `deadline`, fails the rest with kUnavailable, stops the thread.
  virtual void shutdown(Deadline deadline) = 0;
};

}  // namespace lamina
