// Access: who may call what: API keys, browsers' origins, request ids. Pure functions of the
// request and the configuration; used by connections before a body is read.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http_message.h"
#include "server/openai/api_error.h"
#include "server/server_config.h"

namespace lamina::server {

// Compares in a time that depends on `given` alone.
bool matches_any_key(std::string_view given, const std::vector<std::string>& keys);

// Why the request is refused, if it is: 401 without a valid key where one is needed; 403 for a POST
// that some other site's page makes a browser send; 415 for a body that says it is not JSON.
std::optional<ApiError> check_access(const HttpRequest& request, const ServerConfig& config);

// CORS headers for the request's origin; none unless it is allowed.
std::vector<std::pair<std::string, std::string>> cors_headers(const HttpRequest& request,
                                                              const ServerConfig& config);

// The caller's request id if it is harmless in a header and a log line (1 to 128 of
// [A-Za-z0-9._:-]), else `generated`.
std::string choose_request_id(std::string_view given, std::string_view generated);

// Decodes %XX; nullopt for a malformed one and for a NUL.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace lamina::server
