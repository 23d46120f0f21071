// Reads the command line: flags first, then environment (LAMINA_*), then --config FILE (YAML), then
// defaults.
#pragma once

#include <optional>

#include "app/options.h"

namespace lamina::app {

// Nothing if help or the version was asked for and printed, or the flags were wrong and that was
// printed; `exit_code` says which. Throws Error kInvalidArgument, naming the key, for a bad
// --config file.
std::optional<Options> parse_command_line(int argc, char** argv, int& exit_code);

// "2GiB", "512M", "4k", "1000": K, M, G and KiB, MiB, GiB are powers of 1024, k, m, g of 1000.
// Throws Error kInvalidArgument.
uint64_t parse_size(const std::string& text);

}  // namespace lamina::app
