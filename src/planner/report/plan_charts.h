// The charts of `lamina plan`: rooflines of both operators (the paper's Figs 2 and 3), bandwidth
// between the pools (Fig. 4), throughput against cost (Fig. 11), what a step is made of (Fig. 12),
// and the front of cost and time between tokens. Of the model, devices and load in question. Pure.
#pragma once

#include <vector>

#include "planner/advice.h"
#include "planner/report/chart.h"

namespace lamina::planner {

std::vector<Chart> plan_charts(const AdviceRequest& request, const Advice& advice);

}  // namespace lamina::planner
