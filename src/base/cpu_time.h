// How long the calling thread has run, on whichever core: not what other threads took meanwhile.
#pragma once

#include "base/clock.h"

namespace lamina {

Duration thread_cpu_time();

}  // namespace lamina
