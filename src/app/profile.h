// The program `lamina profile`: measures this machine for `lamina plan --profile`.
#pragma once

#include "app/options.h"

namespace CLI {  // NOLINT(readability-identifier-naming): a library's
class App;
}

namespace lamina::app {

// Adds the subcommand and its flags.
CLI::App* add_profile(CLI::App& root, ProfileOptions& options);

// Throws Error. The exit code.
int run_profile(const ProfileOptions& options);

}  // namespace lamina::app
