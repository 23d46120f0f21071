// HttpChannel: a client's socket, spoken to in HTTP: reads requests, writes replies and event
// streams, notices the client's departure. Used by a connection and its answers; knows no route and
// no engine. http_channel.cc alone includes Beast. Confined to the io thread. One coroutine at a
// time reads or writes, besides the watch; each read and write has a deadline.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "base/clock.h"
#include "server/body_memory.h"
#include "server/http_message.h"
#include "server/openai/api_error.h"
#include "server/server_config.h"

namespace lamina::server {

inline constexpr int kStatusClientGone = 499;  // in metrics and logs only

// The request at hand: what its answer carries, and what became of it.
struct Exchange {
  TimePoint arrival;  // the end of its header
  std::string request_id;
  HttpHeaders cors_headers;
  bool keeps_alive = true;  // the connection goes on after it
  int status = 0;           // as sent
};

struct RequestHead {
  HttpRequest request;  // without its body
  bool has_body = false;
  std::optional<ApiError> error;  // what came is not HTTP; nothing else is valid then
};

class HttpChannel {
 public:
  virtual ~HttpChannel() = default;

  [[nodiscard]] virtual boost::asio::any_io_executor executor() = 0;
  // Of the request that read_head() brought last.
  [[nodiscard]] virtual Exchange& exchange() = 0;
  // By us, or the client is gone.
  [[nodiscard]] virtual bool is_closed() const = 0;
  virtual void close() = 0;

  // Begins a new exchange. nullopt: the client left, or never sent a whole header.
  virtual boost::asio::awaitable<std::optional<RequestHead>> read_head() = 0;
  // Once, if there is a body; counts what it reads in `share`. The refusal, if it is too large or
  // broken; if the client does not send it, the channel is closed.
  virtual boost::asio::awaitable<std::optional<ApiError>> read_body(std::string* body,
                                                                    BodyShare* share) = 0;
  // Reads on for a while after a refusal: closing with bytes unread would reset the connection
  // before the client has read why. Nothing can be written any more.
  virtual boost::asio::awaitable<void> linger() = 0;

  // A write that fails closes the channel.
  virtual boost::asio::awaitable<void> send(HttpReply reply) = 0;
  // A stream's head goes out with the first event, so that a request that fails before has an HTTP
  // status.
  virtual boost::asio::awaitable<void> write_events(std::string events) = 0;
  virtual boost::asio::awaitable<void> end_events() = 0;
  [[nodiscard]] virtual bool has_begun_events() const = 0;

  // While a request is answered nothing else reads, so the end of the client's side would be
  // noticed too late: the watch reads on, closes the channel when the client is gone, and keeps
  // bytes that come, the next requests, for their turn.
  virtual void start_watch() = 0;
  virtual boost::asio::awaitable<void> stop_watch() = 0;

  // Returns after `time`, or when woken: by wake(), by close(), or by the end of the watch.
  virtual boost::asio::awaitable<void> wait_for_wake(Duration time) = 0;
  virtual void wake() = 0;
};

// `config` outlives the channel.
std::shared_ptr<HttpChannel> open_http_channel(boost::asio::ip::tcp::socket socket,
                                               const ServerConfig& config);

// Answers 503 without reading a request: there are too many connections.
boost::asio::awaitable<void> refuse_connection(boost::asio::ip::tcp::socket socket);

}  // namespace lamina::server
