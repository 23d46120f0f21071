// The program `lamina run`: one answer, or a chat, in the terminal.
#pragma once

#include "app/options.h"

namespace lamina::app {

// Returns the exit code. Throws Error at start-up.
int run_chat(const RunOptions& options, const std::string& log_level);

}  // namespace lamina::app
