// HttpRequest and HttpReply: what the rest of the server sees of HTTP, so that only connection.cc
// knows Beast. Plain values.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lamina::server {

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
  std::vector<std::pair<std::string, std::string>> headers;  // besides those of every reply
};

}  // namespace lamina::server
