// The program `lamina plan`: which placement gives the most tokens per dollar, beside homogeneous
// ones, with what is assumed.
#pragma once

#include "app/options.h"

namespace CLI {  // NOLINT(readability-identifier-naming): a library's
class App;
}

namespace lamina::app {

// Adds the subcommand and its flags.
CLI::App* add_plan(CLI::App& root, PlanOptions& options);

// Throws Error. The exit code.
int run_plan(const PlanOptions& options);

}  // namespace lamina::app
