// From options to a running engine: threads, local or remote attention workers, the backend. What
// serve and run share.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "app/in_process_workers.h"
#include "app/loading.h"
#include "app/local_workers.h"
#include "app/options.h"
#include "base/trace.h"
#include "device/thread_pool.h"
#include "engine/serving_engine.h"

namespace lamina::app {

// Declared in the order of dependence: the engine goes first.
struct Placement {
  std::unique_ptr<TraceWriter> trace;              // null without --trace
  std::vector<std::unique_ptr<ThreadPool>> pools;  // of each tensor-parallel rank
  // One at most; neither in colocated mode or with remote workers.
  std::unique_ptr<LocalWorkers> local_workers;
  std::unique_ptr<InProcessWorkers> in_process_workers;
  std::unique_ptr<ServingEngine> engine;
};

// None for a name of no transport, as "auto" is.
std::optional<TransportKind> parse_transport(const std::string& name);

// All but the engine: for programs that plan steps themselves. `placement` is empty, and outlives
// the result, as does `model`. Throws Error.
std::unique_ptr<StepBackend> place_backend(const PlacementOptions& options,
                                           const ProcessCpus& cpus,
                                           const LoadedModel& model,
                                           const std::string& log_level,
                                           Placement& placement);

// `model` outlives the result. Throws Error.
Placement place(const PlacementOptions& options,
                const ProcessCpus& cpus,
                const LoadedModel& model,
                int32_t max_queued_sequences,
                const std::string& log_level);

}  // namespace lamina::app
