// What meters of this folder time by. Plain functions.
#pragma once

#include <vector>

#include "device/stream.h"

namespace lamina::planner {

// Seconds since some beginning, of a pool whose calls come from this thread. Where it is all of the
// pool, the time that it ran: turns of other programs on its core are no part of what is measured.
double running_s(StreamView pool);

// Of at least one; of an even number the upper of the two in the middle.
double median_of(std::vector<double> seconds);

}  // namespace lamina::planner
