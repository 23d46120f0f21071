// run_on_handlers: from the io thread to the handlers' threads and back, for work that may take
// long: parsing, tokenizing, serialising.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>

#include "server/openai/api_error.h"

namespace lamina::server {

// The error that `work` threw, if it did: an ApiError as it is; anything else is logged with the
// request's id and becomes a 500. `request_id` outlives the call.
boost::asio::awaitable<std::optional<ApiError>> run_on_handlers(boost::asio::thread_pool& handlers,
                                                                const std::string& request_id,
                                                                std::function<void()> work);

}  // namespace lamina::server
