// Connection: one client's TCP connection: reads requests, answers them one after the other,
// watches for the client's departure while it answers. connection.cc alone includes Beast.
// Everything here belongs to the io thread.
#pragma once

#include <functional>
#include <set>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>

#include "engine/engine.h"
#include "server/api.h"
#include "server/metrics.h"
#include "server/server_config.h"

namespace lamina::server {

// What the server may ask of a connection.
class ConnectionHandle {
 public:
  virtual ~ConnectionHandle() = default;
  // Looks at ServerState again.
  virtual void wake() = 0;
  // Cuts it off.
  virtual void close() = 0;
};

// Shared by all connections; outlives them.
struct ServerState {
  const ServerConfig& config;
  Engine& engine;
  Api& api;
  Metrics& metrics;
  boost::asio::thread_pool& handlers;
  std::function<void()> on_change;  // num_calls or connections went down

  bool is_draining = false;  // no new generations
  bool is_aborting = false;  // running ones end with an error
  int32_t num_calls = 0;     // requests being answered
  std::set<ConnectionHandle*> connections;
};

// Serves the connection to its end.
boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              ServerState& state);
// Answers 503 without reading a request: there are too many connections.
boost::asio::awaitable<void> refuse_connection(boost::asio::ip::tcp::socket socket);

}  // namespace lamina::server
