// Logging: one line per event, through spdlog, which log.cc alone includes. Text is formatted by
// fmt at the caller. Thread-safe. Not for the step path.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace lamina {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped; `role` ("serve", "attention-worker") stands in every line.
void init_logging(LogLevel level, std::string_view role);
// "debug", "info", "warning", "error" to a level; throws Error(kInvalidArgument) for anything else.
LogLevel parse_log_level(std::string_view name);

namespace internal {
bool log_enabled(LogLevel level);
void log_line(LogLevel level, const std::string& line);

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}
}  // namespace internal

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  internal::log(LogLevel::kDebug, format, std::forward<Args>(args)...);
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  internal::log(LogLevel::kInfo, format, std::forward<Args>(args)...);
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  internal::log(LogLevel::kWarning, format, std::forward<Args>(args)...);
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  internal::log(LogLevel::kError, format, std::forward<Args>(args)...);
}

}  // namespace lamina
