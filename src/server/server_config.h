// ServerConfig: everything the HTTP server is told, with defaults. Filled in by app/, immutable
// after validate(). Sizes in bytes, times as durations.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "model/model_config.h"

namespace lamina::server {

// A JSON object of template variables in, the prompt out. Called from several threads at once.
using ChatRenderer = std::function<Result<std::string>(const std::string& context_json)>;

struct ServerConfig {
  std::string host = "127.0.0.1";            // numeric address or a name
  uint16_t port = 8000;                      // 0: any free one
  bool insecure = false;                     // listen beyond loopback without a key all the same
  std::vector<std::string> api_keys;         // any of them opens all but /health
  std::vector<std::string> allowed_origins;  // CORS; "*" allows all; none by default

  std::vector<std::string> served_model_names;  // at least one; the first is what answers say
  std::string model_root;                       // where the model came from, for /v1/models
  std::string version;
  int32_t vocab_size = 0;  // ids in requests are below it
  GenerationDefaults generation_defaults;
  ChatRenderer render_chat;      // empty: the model has no chat template
  std::optional<uint64_t> seed;  // of requests that bring none; random if unset

  int32_t num_handler_threads = 3;  // parse, render, tokenize
  int32_t max_connections = 1024;
  int32_t max_sequences = 1024;  // prompts times n of one call
  size_t max_header_bytes = size_t{16} << 10;
  size_t max_body_bytes = size_t{32} << 20;
  size_t max_all_bodies_bytes = size_t{512} << 20;  // of the requests being answered, together
  size_t max_backlog_bytes = size_t{4} << 20;       // events that wait for a slow reader

  Duration idle_timeout = std::chrono::seconds(75);    // between requests
  Duration header_timeout = std::chrono::seconds(15);  // first byte to end of header
  Duration body_timeout = std::chrono::seconds(60);
  Duration write_timeout = std::chrono::seconds(30);        // of one write
  Duration keep_alive_interval = std::chrono::seconds(15);  // comments in quiet streams
  Duration log_interval = std::chrono::seconds(10);

  // Throws Error kInvalidArgument naming the field, or kFailedPrecondition where the server would
  // listen beyond loopback without an API key and without `insecure`.
  void validate() const;
};

}  // namespace lamina::server
