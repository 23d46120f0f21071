#include "server/http_server.h"

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/error.h"
#include "base/log.h"
#include "server/connection.h"
#include "server/http_channel.h"
#include "server/open_files.h"

namespace lamina::server {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

namespace {

constexpr auto kAwait = net::as_tuple(net::use_awaitable);
// After the deadline of stop(): for errors to reach the clients.
constexpr auto kAbortGrace = std::chrono::seconds(2);
// How often is said that stop() still waits for handlers' work: nobody can interrupt that.
constexpr auto kStuckInterval = std::chrono::seconds(30);
constexpr int kMaxRefusals = 64;  // at once; more are closed without a word

ServerConfig validated(ServerConfig config) {
  config.validate();
  return config;
}

}  // namespace

struct HttpServer::Impl {
  Impl(ServerConfig given, Engine& the_engine, const Tokenizer* tokenizer)
      : config(validated(std::move(given))),
        engine(the_engine),
        api(config, engine, tokenizer),
        metrics(config.served_model_names.front()),
        io(1),
        handlers(static_cast<size_t>(config.num_handler_threads)),
        acceptor(io),
        changed(io),
        log_timer(io),
        state{.config = config,
              .engine = engine,
              .api = api,
              .metrics = metrics,
              .handlers = handlers,
              .on_change = [this] { changed.cancel(); },
              .body_memory = {.max_bytes = config.max_all_bodies_bytes}} {}

  void listen();
  net::awaitable<void> accept_all();
  net::awaitable<void> log_throughput();
  net::awaitable<void> drain();
  template <typename IsDone>
  net::awaitable<void> wait_until(IsDone is_done, Deadline deadline);

  const ServerConfig config;
  Engine& engine;
  Api api;
  Metrics metrics;
  net::io_context io;
  net::thread_pool handlers;
  tcp::acceptor acceptor;
  net::steady_timer changed;  // cancelled, that is fired, when calls or connections end
  net::steady_timer log_timer;
  ServerState state;
  int32_t max_connections = 0;
  int num_refusals = 0;
  uint16_t port = 0;
  std::thread thread;
  std::optional<Deadline> drain_deadline;  // the earliest that stop() was given
  std::atomic<bool> is_running{false};
  std::mutex join_mutex;
};

void HttpServer::Impl::listen() {
  try {
    tcp::resolver resolver(io);
    const auto found =
        resolver.resolve(config.host, std::to_string(config.port), tcp::resolver::passive);
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(endpoint);
    acceptor.listen();
    port = acceptor.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    throw Error(
        StatusCode::kUnavailable,
        fmt::format(
            "cannot listen on {} port {}: {}", config.host, config.port, error.code().message()));
  }
}

net::awaitable<void> HttpServer::Impl::accept_all() {
  net::steady_timer pause(io);
  bool is_failing = false;  // said once, not at each attempt
  while (acceptor.is_open()) {
    auto [ec, socket] = co_await acceptor.async_accept(kAwait);
    if (ec == net::error::operation_aborted) co_return;
    const bool was_failing = std::exchange(is_failing, ec.failed());
    if (ec) {
      if (!was_failing) log_warning("cannot accept connections: {}", ec.message());
      pause.expires_after(std::chrono::milliseconds(100));  // out of descriptors, most likely
      co_await pause.async_wait(kAwait);
    } else if (static_cast<int32_t>(state.connections.size()) < max_connections) {
      net::co_spawn(io, serve_connection(std::move(socket), state), net::detached);
    } else if (num_refusals < kMaxRefusals) {
      ++num_refusals;
      net::co_spawn(io, refuse_connection(std::move(socket)), [this](const std::exception_ptr&) {
        --num_refusals;
      });
    }
  }
}

net::awaitable<void> HttpServer::Impl::log_throughput() {
  EngineStats last = engine.stats();
  while (true) {
    log_timer.expires_after(config.log_interval);
    auto [ec] = co_await log_timer.async_wait(kAwait);
    if (ec) co_return;
    EngineStats now = engine.stats();
    const double seconds = std::chrono::duration<double>(config.log_interval).count();
    const auto rate = [&](uint64_t EngineStats::* count) {
      return static_cast<double>(now.*count - last.*count) / seconds;
    };
    const double usage = now.num_blocks > 0 ? 100.0 * now.num_blocks_used / now.num_blocks : 0.0;
    const bool is_idle = now.num_running == 0 && now.num_waiting == 0 &&
                         now.num_prompt_tokens == last.num_prompt_tokens &&
                         now.num_generated_tokens == last.num_generated_tokens;
    if (!is_idle) {
      log_info(
          "Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, "
          "Running: {}, Waiting: {}, KV cache usage: {:.1f}%",
          rate(&EngineStats::num_prompt_tokens),
          rate(&EngineStats::num_generated_tokens),
          now.num_running,
          now.num_waiting,
          usage);
    }
    last = std::move(now);
  }
}

template <typename IsDone>
net::awaitable<void> HttpServer::Impl::wait_until(IsDone is_done, Deadline deadline) {
  while (!is_done() && !deadline.has_passed()) {
    changed.expires_after(deadline.remaining());
    co_await changed.async_wait(kAwait);
  }
}

net::awaitable<void> HttpServer::Impl::drain() {
  error_code ignored;
  (void)acceptor.close(ignored);
  log_timer.cancel();
  // A second stop() may bring the deadline forward.
  while (state.num_calls > 0 && !drain_deadline->has_passed()) {
    changed.expires_after(drain_deadline->remaining());
    co_await changed.async_wait(kAwait);
  }

  state.is_aborting = true;
  for (ConnectionHandle* connection : state.connections) connection->wake();
  co_await wait_until([this] { return state.num_calls == 0; }, Deadline::after(kAbortGrace));

  for (ConnectionHandle* connection : state.connections) connection->close();
  const auto all_gone = [this] { return state.connections.empty(); };
  co_await wait_until(all_gone, Deadline::after(kStuckInterval));
  while (!all_gone()) {
    log_warning("stopping: {} requests are still being prepared", state.connections.size());
    co_await wait_until(all_gone, Deadline::after(kStuckInterval));
  }
}

HttpServer::HttpServer(ServerConfig config, Engine& engine, const Tokenizer* tokenizer)
    : impl_(std::make_unique<Impl>(std::move(config), engine, tokenizer)) {}

HttpServer::~HttpServer() {  // NOLINT: what cannot be stopped cannot be destroyed either
  stop(Deadline::expired());
}

void HttpServer::start() {
  impl_->max_connections = make_room_for_connections(impl_->config.max_connections);
  impl_->listen();
  net::co_spawn(impl_->io, impl_->accept_all(), net::detached);
  net::co_spawn(impl_->io, impl_->log_throughput(), net::detached);
  impl_->is_running = true;
  impl_->thread = std::thread([this] { impl_->io.run(); });
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

void HttpServer::stop(Deadline deadline) {
  Impl& impl = *impl_;
  if (!impl.is_running) return;
  net::post(impl.io, [&impl, deadline] {
    if (!impl.drain_deadline || deadline.when() < impl.drain_deadline->when()) {
      impl.drain_deadline = deadline;
    }
    impl.changed.cancel();
    if (std::exchange(impl.state.is_draining, true)) return;
    net::co_spawn(impl.io, impl.drain(), [&impl](const std::exception_ptr&) { impl.io.stop(); });
  });
  const std::lock_guard lock(impl.join_mutex);
  if (!impl.thread.joinable()) return;
  impl.thread.join();
  impl.handlers.join();
  impl.is_running = false;
}

}  // namespace lamina::server
