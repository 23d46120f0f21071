// Where tests find their data: fixtures in the repository, and the larger `shared` folder beside
// it, which may be absent.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

namespace lamina::test {

// LAMINA_FIXTURES_DIR names the folder where the tests run without their sources.
inline std::filesystem::path fixture_path(std::string_view relative) {
  const char* override_dir = std::getenv("LAMINA_FIXTURES_DIR");
  if (override_dir != nullptr) return std::filesystem::path(override_dir) / relative;
  return std::filesystem::path(LAMINA_SOURCE_DIR) / "tests" / "fixtures" / relative;
}

inline std::filesystem::path shared_path(std::string_view relative) {
  const char* override_dir = std::getenv("LAMINA_SHARED_DIR");
  const std::filesystem::path root =
      override_dir != nullptr ? std::filesystem::path(override_dir)
                              : std::filesystem::path(LAMINA_SOURCE_DIR).parent_path() / "shared";
  return root / relative;
}

}  // namespace lamina::test

// For tests labelled `shared`.
#define LAMINA_SKIP_WITHOUT_SHARED(relative)                             \
  do {                                                                   \
    if (!std::filesystem::exists(::lamina::test::shared_path(relative))) \
      GTEST_SKIP() << "skipped: needs ../shared/" << (relative);         \
  } while (false)
