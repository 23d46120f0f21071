// LAMINA_CHECK: a bug in our own code ends the process, with both values printed. Never for input
// from a socket, a file or a user: those are validated and answered with a Status or an Error.
// LAMINA_DCHECK costs nothing in release.
#pragma once

#include <fmt/format.h>

#include <string>

namespace lamina::internal {

// Prints and aborts. Never returns.
[[noreturn]] void check_failed(const char* file, int line, const std::string& what);

template <typename A, typename B>
[[noreturn]] void check_op_failed(
    const char* file, int line, const char* expression, const A& left, const B& right) {
  check_failed(file, line, fmt::format("{} ({} vs. {})", expression, left, right));
}

}  // namespace lamina::internal

// LAMINA_CHECK(condition) or LAMINA_CHECK(condition, message), the message anything a std::string
// can append.
#define LAMINA_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::lamina::internal::check_failed(                                                 \
          __FILE__, __LINE__, std::string(#condition) __VA_OPT__(+": " + __VA_ARGS__)); \
  } while (false)

#define LAMINA_CHECK_OP_(op, left, right)                                           \
  do {                                                                              \
    const auto& lamina_left = (left);                                               \
    const auto& lamina_right = (right);                                             \
    if (!(lamina_left op lamina_right)) [[unlikely]]                                \
      ::lamina::internal::check_op_failed(                                          \
          __FILE__, __LINE__, #left " " #op " " #right, lamina_left, lamina_right); \
  } while (false)

#define LAMINA_CHECK_EQ(left, right) LAMINA_CHECK_OP_(==, left, right)
#define LAMINA_CHECK_NE(left, right) LAMINA_CHECK_OP_(!=, left, right)
#define LAMINA_CHECK_LT(left, right) LAMINA_CHECK_OP_(<, left, right)
#define LAMINA_CHECK_LE(left, right) LAMINA_CHECK_OP_(<=, left, right)
#define LAMINA_CHECK_GT(left, right) LAMINA_CHECK_OP_(>, left, right)
#define LAMINA_CHECK_GE(left, right) LAMINA_CHECK_OP_(>=, left, right)

#ifdef NDEBUG
#define LAMINA_DCHECK(condition, ...) \
  do {                                \
  } while (false)
#else
#define LAMINA_DCHECK(condition, ...) LAMINA_CHECK(condition __VA_OPT__(, ) __VA_ARGS__)
#endif
