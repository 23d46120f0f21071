// HttpServer: the OpenAI-compatible HTTP interface over an Engine. One io thread runs all
// connections; a few handler threads parse, render and tokenize. Created, started and stopped by
// app/; the engine and the tokenizer belong to the caller and outlive the server.
#pragma once

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "engine/engine.h"
#include "server/server_config.h"

namespace lamina {
class Tokenizer;
}

namespace lamina::server {

class HttpServer {
 public:
  // `tokenizer` may be null (--skip-tokenizer-init): prompts and answers are token ids then.
  // Throws Error as ServerConfig::validate() does.
  HttpServer(ServerConfig config, Engine& engine, const Tokenizer* tokenizer);
  // Stops at once if stop() was not called.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Listens and serves. Throws Error kUnavailable if the address cannot be had.
  void start();
  // The port it listens on; after start().
  [[nodiscard]] uint16_t port() const;
  // Accepts nothing more, answers /health with 503, lets running requests finish until `deadline`,
  // then ends them with an error. Returns when all is over. A second call, from another thread, may
  // bring the deadline forward. Not from the server's own threads.
  void stop(Deadline deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lamina::server
