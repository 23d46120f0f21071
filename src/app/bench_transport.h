// The program `lamina bench transport`: round trips over every backend that this machine has.
#pragma once

#include "app/options.h"

namespace CLI {  // NOLINT(readability-identifier-naming): a library's
class App;
}

namespace lamina::app {

// Adds the subcommand and its flags.
CLI::App* add_bench_transport(CLI::App& root, BenchTransportOptions& options);

// The exit code: 1 if a backend that is there could not be measured.
int run_bench_transport(const BenchTransportOptions& options);

}  // namespace lamina::app
