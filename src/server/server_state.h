// ServerState: what all connections of a server share: the rooms below, and what the server wants
// of them. Belongs to the io thread, but for what says otherwise itself; outlives the connections.
#pragma once

#include <cstdint>
#include <functional>
#include <set>

#include <boost/asio/thread_pool.hpp>

#include "engine/engine.h"
#include "server/api.h"
#include "server/body_memory.h"
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

struct ServerState {
  const ServerConfig& config;
  Engine& engine;
  Api& api;
  Metrics& metrics;
  boost::asio::thread_pool& handlers;
  std::function<void()> on_change;  // num_calls or connections went down

  BodyMemory body_memory;
  bool is_draining = false;  // no new generations
  bool is_aborting = false;  // running ones end with an error
  int32_t num_calls = 0;     // requests being answered
  std::set<ConnectionHandle*> connections;
};

}  // namespace lamina::server
