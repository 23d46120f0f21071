// StepBackend: a StepRunner whose workers may come and go. LocalBackend never changes;
// ClusterBackend opens a session over the attention workers that are up, loses it when one dies,
// and opens another. Called from the engine's thread.
#pragma once

#include <functional>
#include <vector>

#include "engine/engine.h"
#include "scheduler/step_runner.h"
#include "worker/pipeline_meter.h"

namespace lamina {

enum class BackendEvent : uint8_t {
  kNone,
  kLost,       // the session is gone, and with it the workers' state of every slot
  kRebalance,  // a better session can be opened: once the caller has preempted everything, it may
               // do so
};

// Of all model replicas so far; engine.h says of what.
struct BackendTimes {
  double model_seconds = 0;
  double attention_wait_seconds = 0;
  double host_seconds = 0;
};

class StepBackend : public StepRunner {
 public:
  // Opens a session, replacing the one there is: every slot is empty then. Returns its KV blocks,
  // at least `min_blocks`. kUnavailable (no worker is up), kResourceExhausted (too little memory),
  // or what a worker answered.
  virtual Result<BlockLanes> open_session(int32_t min_blocks) = 0;
  [[nodiscard]] virtual bool has_session() const = 0;
  // What happened since the last call.
  virtual BackendEvent poll_event() = 0;
  // Why the session was lost, after kLost.
  [[nodiscard]] virtual Status loss_reason() const = 0;
  // `wake` is called, from any thread, whenever poll_event() has news.
  virtual void on_event(std::function<void()> wake) = 0;
  // Ends the session in good order.
  virtual void close() = 0;

  [[nodiscard]] virtual std::vector<EngineStats::Worker> workers() const = 0;
  [[nodiscard]] virtual BackendTimes times() const = 0;
  // Since the last call.
  virtual PipelineSample take_sample() = 0;
};

}  // namespace lamina
