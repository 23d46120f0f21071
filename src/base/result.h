// Result<T>: a T or the Status that says why there is none. std::expected is C++23; this is the
// part of it we need.
#pragma once

#include <utility>
#include <variant>

#include "base/check.h"
#include "base/error.h"
#include "base/status.h"

namespace lamina {

template <typename T>
class [[nodiscard]] Result {
 public:
  // Implicit on purpose: `return value;` and `return invalid_argument(...)` both read naturally.
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT
    LAMINA_CHECK(!std::get<1>(state_).ok(), "a Result without a value needs an error");
  }

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  [[nodiscard]] Status status() const { return ok() ? Status() : std::get<1>(state_); }

  // CHECKs ok().
  T& value() & {
    check_ok();
    return std::get<0>(state_);
  }
  const T& value() const& {
    check_ok();
    return std::get<0>(state_);
  }
  T&& value() && {
    check_ok();
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // For setup code: the value, or throws Error.
  T value_or_throw() && {
    if (!ok()) throw Error(std::get<1>(state_));
    return std::get<0>(std::move(state_));
  }

 private:
  void check_ok() const {
    if (!ok()) [[unlikely]]
      internal::check_failed(__FILE__, __LINE__, std::get<1>(state_).to_string());
  }

  std::variant<T, Status> state_;
};

}  // namespace lamina

#define LAMINA_CONCAT_INNER_(a, b) a##b
#define LAMINA_CONCAT_(a, b) LAMINA_CONCAT_INNER_(a, b)

// LAMINA_ASSIGN_OR_RETURN(auto x, f()): declares or assigns x from a Result, or returns its Status.
#define LAMINA_ASSIGN_OR_RETURN(lhs, expression) \
  LAMINA_ASSIGN_OR_RETURN_IMPL_(LAMINA_CONCAT_(lamina_result_, __LINE__), lhs, expression)
#define LAMINA_ASSIGN_OR_RETURN_IMPL_(result, lhs, expression) \
  auto result = (expression);                                  \
  if (!result.ok()) return result.status();                    \
  lhs = *std::move(result)
