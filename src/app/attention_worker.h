// The program `lamina attention-worker`: a control server around an AttentionService until it is
// told to end.
#pragma once

#include "app/options.h"

namespace lamina::app {

// Returns the exit code. Throws Error at start-up.
int run_attention_worker(const AttentionWorkerOptions& options);

}  // namespace lamina::app
