// HttpRequest and HttpReply: what the rest of the server sees of HTTP, so that only http_channel.cc
// knows Beast. Plain values.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/openai/api_error.h"

namespace lamina::server {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without the query, percent-decoded
  // Headers that somebody looks at; empty where absent.
  std::string authorization, content_type, host, origin, preflight_method, request_id;
  std::string body;
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  HttpHeaders headers;  // besides those of every reply
};

// A client must be able to try again within the time that a generation takes to end.
inline constexpr const char* kRetryAfterSeconds = "1";

// The reply that tells of `error`, with the headers that its status asks for.
HttpReply to_reply(const ApiError& error);

}  // namespace lamina::server
