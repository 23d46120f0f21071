// Benchmarks of whole deployments take the flags of `lamina serve`, behind a model and a number of
// layers, and are the programs of their own attention workers and measuring peers too.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "app/options.h"

namespace lamina::bench {

// The main of such a benchmark, `program [model [layers [flags]]]`: `model` and `flags` stand for
// what is not given; layers 0: all. Started as an attention worker or a measuring peer, it is one.
// The exit code: run()'s, or 1 for an error, which is printed.
int run_with_serve_options(
    int argc,
    char** argv,
    const std::string& model,
    const std::vector<std::string>& flags,
    const std::function<int(const app::ServeOptions& options, int64_t layers)>& run);

}  // namespace lamina::bench
