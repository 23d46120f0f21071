// GenerationAnswer: the answer to one generation call over HTTP: prepares it on the handlers'
// threads, runs it at the engine, writes what comes out of it, whole or as a stream, and ends it
// when the client leaves. Used by a connection, one for each call; confined to the io thread.
// Shared, because the engine's wake-ups may come when it is gone.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "server/generation_call.h"
#include "server/http_channel.h"
#include "server/server_state.h"

namespace lamina::server {

class GenerationAnswer : public std::enable_shared_from_this<GenerationAnswer> {
 public:
  // Both outlive it.
  GenerationAnswer(ServerState& state, HttpChannel& channel) : state_(state), channel_(channel) {}

  // Once. Refuses, or answers to the end; when it returns, nothing of the call runs any more.
  boost::asio::awaitable<void> run(ApiKind kind, std::string body);

 private:
  boost::asio::awaitable<void> run_call(PreparedCall prepared);
  boost::asio::awaitable<void> answer_whole(ResponseContext context, CallMetrics& metrics);
  boost::asio::awaitable<void> answer_stream(ResponseContext context, CallMetrics& metrics);
  boost::asio::awaitable<void> fail_stream(const ApiError& error);

  // Feed what has happened to the response; the first failure goes to `error_`.
  void take_events(ResponseBody* response, CallMetrics& metrics);
  std::string take_events(ResponseStream* response, CallMetrics& metrics);
  void on_failure(const GenerationFailure& failure, CallMetrics& metrics);
  // An answer that is whole already goes out also when the server aborts.
  void check_abort(const ResponseProgress& progress);
  // On the io thread, after the engine has put events in the mailbox.
  void on_events();

  ServerState& state_;
  HttpChannel& channel_;
  std::optional<GenerationCall> call_;
  std::optional<ApiError> error_;  // why the answer ends early
};

}  // namespace lamina::server
