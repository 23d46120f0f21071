#include "app/output.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include "base/error.h"

namespace lamina::app {

void write_output(const std::string& path, const std::string& text) {
  if (path.empty()) {
    std::fputs(text.c_str(), stdout);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw Error(StatusCode::kUnavailable, fmt::format("cannot write '{}'", path));
}

}  // namespace lamina::app
