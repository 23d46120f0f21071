// What tests of wire formats, here and in worker, share: bytes as hex text, 16 to a line, and the
// golden files. A golden is rewritten when LAMINA_UPDATE_GOLDEN is set, and reviewed as a diff.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>

#include "base/file.h"
#include "support/paths.h"

namespace lamina::wire {

inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char* separator = i % 16 == 15 || i + 1 == bytes.size() ? "\n" : " ";
    text += fmt::format("{:02x}{}", static_cast<unsigned>(bytes[i]), separator);
  }
  return text;
}

inline std::filesystem::path golden_path(const std::string& name) {
  return test::fixture_path("golden/wire/" + name);
}

// EXPECT_EQ's right side: what the file holds, or `actual` itself after writing it.
inline std::string golden(const std::string& name, const std::string& actual) {
  const char* update = std::getenv("LAMINA_UPDATE_GOLDEN");  // NOLINT: nobody calls setenv
  if (update != nullptr) std::ofstream(golden_path(name)) << actual;
  return read_text_file(golden_path(name), 1 << 16);
}

}  // namespace lamina::wire
