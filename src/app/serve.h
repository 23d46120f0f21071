// The program `lamina serve`: model, attention workers, engine and HTTP server until told to end.
#pragma once

#include <string>

#include "app/options.h"

namespace lamina::app {

// Returns the exit code. Throws Error at start-up.
int run_serve(const ServeOptions& options, const std::string& log_level);

}  // namespace lamina::app
