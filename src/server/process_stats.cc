#include "server/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "server/engine_metrics.h"

namespace lamina::server {

namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// Seconds since 1970, from field 22 of /proc/self/stat (ticks since boot) and the uptime.
double start_time_seconds() {
  std::ifstream stat("/proc/self/stat");
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');  // The name may hold spaces.
  if (name_end == std::string::npos) return 0;
  size_t position = name_end + 1;
  constexpr int kFieldsAfterName = 19;  // up to field 21
  for (int i = 0; i <= kFieldsAfterName && position != std::string::npos; ++i) {
    position = line.find(' ', position + (i == 0 ? 0 : 1));
  }
  double uptime = 0;
  std::ifstream("/proc/uptime") >> uptime;
  if (position == std::string::npos || uptime == 0) return 0;
  const double ticks = std::strtod(line.c_str() + position, nullptr);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count() - uptime +
         ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

std::vector<MetricFamily> collect_process_metrics() {
  std::vector<MetricFamily> families;
  const auto add = [&](const char* name, const char* help, MetricType type, double value) {
    families.push_back(make_family(name, help, type));
    add_value(&families.back(), {}, value);
  };
  static const double kStartTime = start_time_seconds();
  add("process_start_time_seconds", "Seconds since 1970.", MetricType::Gauge, kStartTime);

  int64_t size_pages = 0;
  int64_t resident_pages = 0;
  if (std::ifstream("/proc/self/statm") >> size_pages >> resident_pages) {
    const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
    add("process_virtual_memory_bytes",
        "Address space.",
        MetricType::Gauge,
        static_cast<double>(size_pages) * page_bytes);
    add("process_resident_memory_bytes",
        "Resident memory.",
        MetricType::Gauge,
        static_cast<double>(resident_pages) * page_bytes);
  }
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    add("process_cpu_seconds_total",
        "Processor time.",
        MetricType::Counter,
        seconds(usage.ru_utime) + seconds(usage.ru_stime));
  }
  std::error_code error;
  int64_t num_open = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++num_open;
  }
  if (!error) {
    add("process_open_fds", "Open descriptors.", MetricType::Gauge, static_cast<double>(num_open));
  }
  return families;
}

}  // namespace lamina::server
