#include "server/handlers.h"

#include <exception>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"

namespace lamina::server {

namespace net = boost::asio;

net::awaitable<std::optional<ApiError>> run_on_handlers(net::thread_pool& handlers,
                                                        const std::string& request_id,
                                                        std::function<void()> work) {
  auto task = [&work, &request_id]() -> net::awaitable<std::optional<ApiError>> {
    try {
      work();
      co_return std::nullopt;
    } catch (const ApiError& error) {
      co_return error;
    } catch (const std::exception& error) {
      log_error("request {}: {}", request_id, error.what());
      co_return ApiError(500, "server_error", "internal error");
    }
  };
  co_return co_await net::co_spawn(handlers.get_executor(), task, net::use_awaitable);
}

}  // namespace lamina::server
