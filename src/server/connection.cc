#include "server/connection.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/log.h"
#include "server/access.h"
#include "server/generation_answer.h"
#include "server/handlers.h"
#include "server/http_channel.h"
#include "server/routes.h"

namespace lamina::server {

namespace net = boost::asio;
using net::ip::tcp;

namespace {

// Only known methods become metric labels.
std::string_view method_label(std::string_view method) {
  for (const std::string_view known : {"GET", "POST", "HEAD", "OPTIONS"}) {
    if (method == known) return known;
  }
  return "other";
}

bool takes_body(const HttpRequest& request) {
  const Route* route = find_route(request.path);
  return route != nullptr && route->is_post && route->allows(request.method);
}

HttpReply model_reply(const Api& api, std::string_view path) {
  HttpReply reply;
  try {
    reply.body = api.model(std::string(model_id_of(path)));
  } catch (const ApiError& unknown) {
    reply = to_reply(unknown);
  }
  return reply;
}

// Counts a request as being answered while it lives.
class CallCount {
 public:
  explicit CallCount(ServerState& state) : state_(state) { ++state_.num_calls; }
  ~CallCount() {
    --state_.num_calls;
    state_.on_change();
  }
  CallCount(const CallCount&) = delete;
  CallCount& operator=(const CallCount&) = delete;

 private:
  ServerState& state_;
};

class Connection final : public ConnectionHandle {
 public:
  Connection(tcp::socket socket, ServerState& state)
      : state_(state), channel_(open_http_channel(std::move(socket), state.config)) {}

  net::awaitable<void> run();
  void wake() override { channel_->wake(); }
  void close() override { channel_->close(); }

 private:
  // One request and its answer; false when the connection has come to its end.
  net::awaitable<bool> serve_one();
  // True if the request's body was not read to its end.
  net::awaitable<bool> answer_head(RequestHead* head);
  void count_request(const HttpRequest& request) const;
  // Takes the request's body.
  net::awaitable<void> answer(HttpRequest* request);
  net::awaitable<void> answer_route(const Route& route, HttpRequest* request);
  net::awaitable<void> generate(ApiKind kind, std::string body);

  ServerState& state_;
  const std::shared_ptr<HttpChannel> channel_;  // shared with its watch
};

net::awaitable<void> Connection::run() {
  state_.connections.insert(this);
  try {
    while (co_await serve_one()) {
    }
  } catch (const std::exception& error) {
    log_warning("a connection ended in an error: {}", error.what());
  }
  channel_->close();
  state_.connections.erase(this);
  state_.on_change();
}

net::awaitable<bool> Connection::serve_one() {
  std::optional<RequestHead> head = co_await channel_->read_head();
  if (!head) co_return false;
  if (head->error) {
    co_await channel_->send(to_reply(*head->error));
    co_await channel_->linger();
    co_return false;
  }
  const bool leaves_body = co_await answer_head(&*head);
  if (leaves_body) co_await channel_->linger();
  co_return channel_->exchange().keeps_alive && !channel_->is_closed();
}

net::awaitable<bool> Connection::answer_head(RequestHead* head) {
  const CallCount call_count(state_);
  HttpRequest& request = head->request;
  Exchange& exchange = channel_->exchange();
  exchange.request_id = choose_request_id(request.request_id, exchange.request_id);
  exchange.cors_headers = cors_headers(request, state_.config);
  std::optional<ApiError> refusal = check_access(request, state_.config);
  // Only a body with a use is taken in: /health, say, is open to strangers.
  const bool wants_body = !refusal && takes_body(request);
  BodyShare body_share(state_.body_memory);
  if (head->has_body && wants_body) {
    refusal = co_await channel_->read_body(&request.body, &body_share);
  }
  const bool leaves_body = head->has_body && (refusal || !wants_body);
  if (leaves_body) exchange.keeps_alive = false;
  if (refusal) {
    co_await channel_->send(to_reply(*refusal));
  } else if (!channel_->is_closed()) {
    co_await answer(&request);
  }
  count_request(request);
  co_return leaves_body;
}

void Connection::count_request(const HttpRequest& request) const {
  const Exchange& exchange = channel_->exchange();
  const double seconds =
      std::chrono::duration<double>(steady_clock().now() - exchange.arrival).count();
  const Route* route = find_route(request.path);
  const std::string_view handler = route != nullptr ? route->name : "other";
  const std::string_view method = method_label(request.method);
  state_.metrics.count_http(handler, method, exchange.status, seconds);
  log_debug("{} {} {} {:.3f} s, request {}",
            method,
            handler,
            exchange.status,
            seconds,
            exchange.request_id);
}

net::awaitable<void> Connection::answer(HttpRequest* request) {
  const Route* route = find_route(request->path);
  if (route == nullptr) {
    const ApiError error(
        404, "invalid_request_error", "there is nothing at this path", "", "not_found");
    co_await channel_->send(to_reply(error));
    co_return;
  }
  const std::string allowed(route->allowed_methods());
  if (request->method == "OPTIONS") {
    HttpReply reply;
    reply.status = 204;
    reply.headers.emplace_back("Allow", allowed);
    co_await channel_->send(std::move(reply));
  } else if (!route->allows(request->method)) {
    HttpReply reply = to_reply(ApiError(405,
                                        "invalid_request_error",
                                        fmt::format("{} takes {}", route->name, allowed),
                                        "",
                                        "method_not_allowed"));
    reply.headers.emplace_back("Allow", allowed);
    co_await channel_->send(std::move(reply));
  } else {
    co_await answer_route(*route, request);
  }
}

net::awaitable<void> Connection::answer_route(const Route& route, HttpRequest* request) {
  HttpReply reply;
  std::function<void()> work;  // that may take long
  Api& api = state_.api;
  switch (route.endpoint) {
    case Endpoint::kCompletions:
      co_return co_await generate(ApiKind::kCompletion, std::move(request->body));
    case Endpoint::kChatCompletions:
      co_return co_await generate(ApiKind::kChat, std::move(request->body));
    case Endpoint::kTokenize:
      work = [&] { reply.body = api.tokenize(request->body); };
      break;
    case Endpoint::kDetokenize:
      work = [&] { reply.body = api.detokenize(request->body); };
      break;
    case Endpoint::kMetrics:
      reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
      work = [&] {
        reply.body = state_.metrics.text(state_.engine.stats(), state_.engine.health().ok());
      };
      break;
    case Endpoint::kModels:
      reply.body = api.models();
      break;
    case Endpoint::kModel:
      reply = model_reply(api, request->path);
      break;
    case Endpoint::kHealth:
      reply = api.health(state_.is_draining);
      break;
    case Endpoint::kVersion:
      reply.body = api.version();
      break;
  }
  if (work) {
    const std::string& request_id = channel_->exchange().request_id;
    const std::optional<ApiError> error =
        co_await run_on_handlers(state_.handlers, request_id, std::move(work));
    if (error) reply = to_reply(*error);
  }
  co_await channel_->send(std::move(reply));
}

net::awaitable<void> Connection::generate(ApiKind kind, std::string body) {
  const auto generation = std::make_shared<GenerationAnswer>(state_, *channel_);
  co_await generation->run(kind, std::move(body));
}

}  // namespace

net::awaitable<void> serve_connection(tcp::socket socket, ServerState& state) {
  Connection connection(std::move(socket), state);
  co_await connection.run();
}

}  // namespace lamina::server
