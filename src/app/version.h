// Version of the program; CMake's project() is checked against it.
#pragma once

#include <string_view>

namespace lamina::app {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace lamina::app
