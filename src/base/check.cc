#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace lamina::internal {

void check_failed(const char* file, int line, const std::string& what) {
  std::fprintf(
      stderr, "lamina: internal error at %s:%d: check failed: %s\n", file, line, what.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace lamina::internal
