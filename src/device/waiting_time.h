// What waiting for GPUs takes of CPUs: synchronize() spins, since to sleep costs a step more than
// it takes.
#pragma once

#include "base/clock.h"

namespace lamina {

// CPU time of all threads in synchronize() so far.
[[nodiscard]] Duration time_waiting();
// That of the calling thread.
[[nodiscard]] Duration thread_time_waiting();

}  // namespace lamina
