#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "base/error.h"

namespace lamina {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  // Standard error, because `lamina run` prints the model's text on standard output.
  static const auto kLogger = [] {
    auto created = spdlog::stderr_color_mt("lamina");
    created->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
    created->flush_on(spdlog::level::warn);
    return created;
  }();
  return *kLogger;
}

}  // namespace

void init_logging(LogLevel level, std::string_view role) {
  logger().set_level(to_spdlog(level));
  logger().set_pattern(fmt::format("%Y-%m-%d %H:%M:%S.%e %^%l%$ [{}] %v", role));
}

LogLevel parse_log_level(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("log level '{}' is not one of debug, info, warning, error", name));
}

namespace internal {

bool log_enabled(LogLevel level) {
  return logger().should_log(to_spdlog(level));
}

void log_line(LogLevel level, const std::string& line) {
  logger().log(to_spdlog(level), "{}", line);
}

}  // namespace internal
}  // namespace lamina
