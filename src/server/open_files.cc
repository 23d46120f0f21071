#include "server/open_files.h"

#include <sys/resource.h>

#include <algorithm>

#include "base/log.h"

namespace lamina::server {

namespace {

constexpr rlim_t kOtherFiles = 512;

}  // namespace

int32_t make_room_for_connections(int32_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t needed = static_cast<rlim_t>(wanted) + kOtherFiles;
  if (limit.rlim_cur >= needed) return wanted;
  limit.rlim_cur = std::min(limit.rlim_max, needed);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= needed) return wanted;
  const rlim_t fitting = limit.rlim_cur > kOtherFiles ? limit.rlim_cur - kOtherFiles : 1;
  log_warning("{} connections instead of {}: the process may open {} files (see ulimit -n)",
              fitting,
              wanted,
              limit.rlim_cur);
  return static_cast<int32_t>(fitting);
}

}  // namespace lamina::server
