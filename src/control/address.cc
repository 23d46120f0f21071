#include "control/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace lamina::control {
namespace {

bool is_host_character(char c) {
  const bool letter_or_digit =
      (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return letter_or_digit || c == '.' || c == '-' || c == '_';
}

bool is_ipv6(const std::string& host) {
  in6_addr address = {};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// A name or an IPv4 address when not `bracketed`, an IPv6 address when so.
bool is_host(const std::string& host, bool bracketed) {
  if (bracketed) return is_ipv6(host);
  return !host.empty() && host.size() <= 255 && std::ranges::all_of(host, is_host_character);
}

}  // namespace

std::string ControlAddress::to_string() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<ControlAddress> parse_control_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  const auto refuse = [&] {
    return invalid_argument(
        fmt::format("'{}' is not an address of the form host:port or [v6]:port", text));
  };
  if (colon == std::string_view::npos) return refuse();
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);

  ControlAddress address{.host = std::string(host)};
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  const bool port_ok =
      !digits.empty() && error == std::errc() && end == digits.data() + digits.size();
  if (!port_ok || !is_host(address.host, bracketed)) return refuse();
  return address;
}

}  // namespace lamina::control
