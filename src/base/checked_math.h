// Checked arithmetic for sizes that come from files and sockets: every sum and product of such
// numbers goes through here, so that a lying header ends in an error and never in a small
// allocation.
#pragma once

#include <concepts>
#include <optional>

namespace lamina {

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// Smallest multiple of `unit` that is >= `value`. No overflow check: for our own sizes.
template <std::integral T>
[[nodiscard]] constexpr T round_up(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

template <std::integral T>
[[nodiscard]] constexpr T ceil_div(T value, T unit) {
  return (value + unit - 1) / unit;
}

}  // namespace lamina
