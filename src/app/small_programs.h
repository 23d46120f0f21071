// The programs `lamina convert` and `lamina collect-env`: both print and end.
#pragma once

#include "app/options.h"

namespace lamina::app {

// Slices, carried values and their bytes. Throws Error.
int run_convert(const ConvertOptions& options);
int run_collect_env();

}  // namespace lamina::app
