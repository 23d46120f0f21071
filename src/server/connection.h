// serve_connection: one client's TCP connection: reads requests, checks who may call what, answers
// them one after the other. Belongs to the io thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "server/server_state.h"

namespace lamina::server {

// Serves the connection to its end.
boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              ServerState& state);

}  // namespace lamina::server
