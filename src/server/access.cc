#include "server/access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>

namespace lamina::server {

namespace {

constexpr std::string_view kHealthPath = "/health";

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

bool is_allowed_origin(const std::string& origin, const ServerConfig& config) {
  const auto& allowed = config.allowed_origins;
  return std::any_of(allowed.begin(), allowed.end(), [&](const std::string& entry) {
    return entry == "*" || entry == origin;
  });
}

// Of "host", "host:port" or "[v6]:port".
std::string host_name(std::string_view host) {
  if (host.substr(0, 1) == "[") return std::string(host.substr(1, host.find(']') - 1));
  return std::string(host.substr(0, host.find(':')));
}

// Not a name that a stranger's name server may lead here.
bool is_address_or_localhost(const std::string& name) {
  in6_addr address{};
  return equals_ignoring_case(name, "localhost") ||
         inet_pton(AF_INET, name.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &address) == 1;
}

// The server's own pages: "http://host:port" where Host says "host:port". Pages at any other name
// would pass too, once that name leads to this server (DNS rebinding), but they have no API key.
bool is_same_origin(const HttpRequest& request, const ServerConfig& config) {
  const size_t scheme_end = request.origin.find("://");
  return scheme_end != std::string::npos &&
         equals_ignoring_case(std::string_view(request.origin).substr(scheme_end + 3),
                              request.host) &&
         (!config.api_keys.empty() || is_address_or_localhost(host_name(request.host)));
}

bool is_preflight(const HttpRequest& request, const ServerConfig& config) {
  return request.method == "OPTIONS" && !request.preflight_method.empty() &&
         is_allowed_origin(request.origin, config);
}

std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization.size() < kScheme.size() ||
      !equals_ignoring_case(authorization.substr(0, kScheme.size()), kScheme)) {
    return {};
  }
  authorization.remove_prefix(kScheme.size());
  const size_t start = authorization.find_first_not_of(' ');
  return start == std::string_view::npos ? std::string_view() : authorization.substr(start);
}

bool is_json_type(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return equals_ignoring_case(type, "application/json");
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

bool matches_any_key(std::string_view given, const std::vector<std::string>& keys) {
  bool matches = false;
  for (const std::string& key : keys) {
    size_t difference = given.size() ^ key.size();
    for (size_t i = 0; i < given.size(); ++i) {
      difference |= static_cast<unsigned char>(given[i] ^ key[i % key.size()]);
    }
    matches |= difference == 0;
  }
  return matches;
}

std::optional<ApiError> check_access(const HttpRequest& request, const ServerConfig& config) {
  const bool is_open = request.path == kHealthPath || is_preflight(request, config);
  if (!is_open && !config.api_keys.empty() &&
      !matches_any_key(bearer_token(request.authorization), config.api_keys)) {
    return ApiError(401,
                    "invalid_request_error",
                    request.authorization.empty()
                        ? "this server needs an API key: send 'Authorization: Bearer KEY'"
                        : "incorrect API key",
                    "",
                    "invalid_api_key");
  }
  if (request.method != "POST") return std::nullopt;
  // A page elsewhere can make its visitor's browser post here without asking, though not read.
  if (!request.origin.empty() && !is_same_origin(request, config) &&
      !is_allowed_origin(request.origin, config)) {
    return ApiError(403,
                    "invalid_request_error",
                    "requests from this Origin are refused; --allowed-origins lists those accepted",
                    "",
                    "origin_not_allowed");
  }
  if (!request.content_type.empty() && !is_json_type(request.content_type)) {
    return ApiError(415, "invalid_request_error", "Content-Type must be application/json");
  }
  return std::nullopt;
}

std::vector<std::pair<std::string, std::string>> cors_headers(const HttpRequest& request,
                                                              const ServerConfig& config) {
  if (request.origin.empty() || !is_allowed_origin(request.origin, config)) return {};
  std::vector<std::pair<std::string, std::string>> headers = {
      {"Access-Control-Allow-Origin", request.origin},
      {"Access-Control-Expose-Headers", "X-Request-Id"},
      {"Vary", "Origin"}};
  if (is_preflight(request, config)) {
    headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    headers.emplace_back("Access-Control-Allow-Headers",
                         "Authorization, Content-Type, X-Request-Id");
    headers.emplace_back("Access-Control-Max-Age", "600");
  }
  return headers;
}

std::string choose_request_id(std::string_view given, std::string_view generated) {
  constexpr size_t kMaxBytes = 128;
  const bool is_harmless =
      !given.empty() && given.size() <= kMaxBytes &&
      std::all_of(given.begin(), given.end(), [](unsigned char c) {
        return c < 0x80 && (std::isalnum(c) != 0 || c == '.' || c == '_' || c == ':' || c == '-');
      });
  return std::string(is_harmless ? given : generated);
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_value(text[i + 1]);
      const int low = hex_value(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    decoded += c;
  }
  return decoded;
}

}  // namespace lamina::server
