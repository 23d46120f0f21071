#include "server/connection.h"

#include <algorithm>
#include <memory>
#include <optional>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "base/log.h"
#include "server/access.h"
#include "server/generation_call.h"
#include "server/routes.h"

namespace lamina::server {

namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using net::ip::tcp;

constexpr auto kAwait = net::as_tuple(net::use_awaitable);
constexpr size_t kReadBytes = 16 * 1024;
// Requests that a client sends ahead of their turn; past this its departure goes unnoticed.
constexpr size_t kMaxPipelinedBytes = 64 * 1024;
constexpr auto kLingerTime = std::chrono::seconds(5);
constexpr int kStatusClientGone = 499;  // in metrics and logs only

// A client must be able to try again within the time that a generation takes to end.
constexpr const char* kRetryAfterSeconds = "1";

std::string to_string(beast::string_view text) {
  return {text.data(), text.size()};
}

HttpRequest to_http_request(const http::request_parser<http::string_body>::value_type& message) {
  HttpRequest request;
  request.method = to_string(message.method_string());
  const std::string target = to_string(message.target());
  request.path = percent_decode(target.substr(0, target.find('?'))).value_or("");
  request.authorization = to_string(message[http::field::authorization]);
  request.content_type = to_string(message[http::field::content_type]);
  request.host = to_string(message[http::field::host]);
  request.origin = to_string(message[http::field::origin]);
  request.preflight_method = to_string(message[http::field::access_control_request_method]);
  request.request_id = to_string(message["X-Request-Id"]);
  return request;
}

HttpReply to_reply(const ApiError& error) {
  HttpReply reply;
  reply.status = error.http_status();
  reply.body = error.body();
  if (reply.status == 503) reply.headers.emplace_back("Retry-After", kRetryAfterSeconds);
  if (reply.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

ApiError shutting_down() {
  return error_from_status(unavailable("the server is shutting down"));
}

// The client left, or never sent a whole header: there is nobody to answer.
bool is_silent_end(error_code ec) {
  return ec == http::error::end_of_stream || ec == http::error::partial_message ||
         ec == beast::error::timeout || ec == net::error::connection_reset;
}

ApiError bad_http(error_code ec) {
  if (ec == http::error::header_limit) {
    return {431, "invalid_request_error", "the request's header is too large"};
  }
  return {400, "invalid_request_error", "not a valid HTTP request: " + ec.message()};
}

// Only known methods become metric labels.
std::string_view method_label(std::string_view method) {
  for (const std::string_view known : {"GET", "POST", "HEAD", "OPTIONS"}) {
    if (method == known) return known;
  }
  return "other";
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

class Connection final : public ConnectionHandle, public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, ServerState& state)
      : state_(state), stream_(std::move(socket)), wake_(stream_.get_executor()) {}

  net::awaitable<void> run();
  void wake() override { wake_.cancel(); }
  void close() override {
    is_closed_ = true;
    wake_.cancel();
    stream_.close();
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  // One request and its answer; false when the connection has come to its end.
  net::awaitable<bool> serve_one();
  net::awaitable<bool> wait_for_request();
  void begin_request(const Parser::value_type& message, error_code ec);
  void count_request(const HttpRequest& request) const;
  net::awaitable<error_code> read_header(Parser& parser);
  net::awaitable<error_code> read_whole_body(Parser& parser);
  net::awaitable<std::optional<ApiError>> read_body(Parser& parser);
  net::awaitable<void> answer(const HttpRequest& request);
  net::awaitable<void> answer_route(const Route& route, HttpRequest request);
  net::awaitable<void> linger();

  // Generations.
  net::awaitable<void> generate(ApiKind kind, std::string body);
  net::awaitable<void> run_call(PreparedCall prepared);
  net::awaitable<void> answer_whole(ResponseContext context, CallMetrics& metrics);
  net::awaitable<void> answer_stream(ResponseContext context, CallMetrics& metrics);
  net::awaitable<void> write_events(std::string events);
  net::awaitable<void> end_stream();
  net::awaitable<void> fail_stream(const ApiError& error);

  ApiError on_failure(const GenerationFailure& failure, CallMetrics& metrics) const;

  // The client's departure.
  void start_watch();
  net::awaitable<void> watch();
  net::awaitable<void> stop_watch();
  void on_events();

  net::awaitable<void> wait_for_wake(Duration time);
  net::awaitable<std::optional<ApiError>> on_handlers(std::function<void()> work);

  net::awaitable<void> send(HttpReply reply);
  net::awaitable<void> send_error(const ApiError& error) { return send(to_reply(error)); }
  template <typename Response>
  void set_common_headers(Response* response) const;
  // Ends the connection if the write failed.
  void check_write(error_code ec);

  ServerState& state_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  net::steady_timer wake_;
  net::cancellation_signal watch_cancellation_;
  bool is_watching_ = false;
  bool is_closed_ = false;  // by us, or the client is gone
  std::optional<GenerationCall> call_;

  // Of the request at hand.
  TimePoint arrival_;
  unsigned http_version_ = 11;
  bool is_head_ = false;
  bool keeps_alive_ = true;
  bool has_stream_head_ = false;
  int status_ = 0;
  std::string request_id_;
  std::vector<std::pair<std::string, std::string>> cors_headers_;
};

net::awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  state_.connections.insert(this);
  try {
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    while (co_await serve_one()) {
    }
  } catch (const std::exception& error) {
    log_warning("a connection ended in an error: {}", error.what());
  }
  call_.reset();
  stream_.close();
  state_.connections.erase(this);
  state_.on_change();
}

net::awaitable<bool> Connection::wait_for_request() {
  if (buffer_.size() > 0) co_return true;
  stream_.expires_after(state_.config.idle_timeout);
  auto [ec, count] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
  buffer_.commit(count);
  co_return !ec;
}

net::awaitable<bool> Connection::serve_one() {
  if (!co_await wait_for_request()) co_return false;
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(state_.config.max_header_bytes));
  parser.body_limit(boost::none);  // Checked in read_body(), after the API key.
  const error_code ec = co_await read_header(parser);
  if (is_closed_ || is_silent_end(ec)) co_return false;
  begin_request(parser.get(), ec);
  if (ec) {
    co_await send_error(bad_http(ec));
    co_await linger();
    co_return false;
  }
  const CallCount call_count(state_);
  HttpRequest request = to_http_request(parser.get());
  request_id_ = choose_request_id(request.request_id, request_id_);
  cors_headers_ = cors_headers(request, state_.config);
  std::optional<ApiError> refusal = check_access(request, state_.config);
  const bool has_body = !parser.is_done();
  if (!refusal && has_body) refusal = co_await read_body(parser);
  if (refusal) {
    keeps_alive_ = keeps_alive_ && !has_body;
    co_await send_error(*refusal);
    if (has_body) co_await linger();
  } else if (!is_closed_) {
    request.body = std::move(parser.get().body());
    co_await answer(request);
  }
  count_request(request);
  co_return keeps_alive_ && !is_closed_;
}

void Connection::begin_request(const Parser::value_type& message, error_code ec) {
  arrival_ = steady_clock().now();
  http_version_ = message.version() == 10 ? 10 : 11;
  keeps_alive_ = !ec && message.keep_alive();
  is_head_ = !ec && message.method() == http::verb::head;
  has_stream_head_ = false;
  status_ = 0;
  request_id_ = make_unique_id();
  cors_headers_.clear();
}

void Connection::count_request(const HttpRequest& request) const {
  const double seconds = std::chrono::duration<double>(steady_clock().now() - arrival_).count();
  const Route* route = find_route(request.path);
  const std::string_view handler = route != nullptr ? route->name : "other";
  const std::string_view method = method_label(request.method);
  state_.metrics.count_http(handler, method, status_, seconds);
  log_debug("{} {} {} {:.3f} s, request {}", method, handler, status_, seconds, request_id_);
}

// Beast's own limit bounds each line, not their sum.
net::awaitable<error_code> Connection::read_header(Parser& parser) {
  stream_.expires_after(state_.config.header_timeout);
  size_t num_bytes = 0;
  while (!parser.is_header_done()) {
    auto [ec, count] = co_await http::async_read_some(stream_, buffer_, parser, kAwait);
    num_bytes += count;
    if (!ec && num_bytes > state_.config.max_header_bytes) ec = http::error::header_limit;
    if (ec) co_return ec;
  }
  co_return error_code();
}

// Counts everything that comes with the body: chunk headers and trailers too.
net::awaitable<error_code> Connection::read_whole_body(Parser& parser) {
  stream_.expires_after(state_.config.body_timeout);
  size_t num_bytes = 0;
  while (!parser.is_done()) {
    auto [ec, count] = co_await http::async_read_some(stream_, buffer_, parser, kAwait);
    num_bytes += count;
    if (!ec && num_bytes / 2 > state_.config.max_body_bytes) ec = http::error::body_limit;
    if (ec) co_return ec;
  }
  co_return error_code();
}

net::awaitable<std::optional<ApiError>> Connection::read_body(Parser& parser) {
  const uint64_t limit = state_.config.max_body_bytes;
  const ApiError too_large(
      413, "invalid_request_error", fmt::format("the body is larger than {} bytes", limit));
  if (parser.content_length().value_or(0) > limit) co_return too_large;
  parser.body_limit(limit);
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    stream_.expires_after(state_.config.write_timeout);
    co_await net::async_write(stream_, net::buffer(kContinue), kAwait);
  }
  const error_code ec = co_await read_whole_body(parser);
  if (!ec) co_return std::nullopt;
  if (ec == http::error::body_limit) co_return too_large;
  if (ec == beast::error::timeout) {
    is_closed_ = true;  // The stream has closed its socket.
    status_ = 408;
    co_return std::nullopt;
  }
  if (ec.category() == make_error_code(http::error::bad_chunk).category() &&
      ec != http::error::partial_message) {
    co_return bad_http(ec);
  }
  is_closed_ = true;
  status_ = kStatusClientGone;
  co_return std::nullopt;
}

// Reads on for a while after a refusal: closing with bytes unread would reset the connection before
// the client has read why.
net::awaitable<void> Connection::linger() {
  error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLingerTime);
  buffer_.consume(buffer_.size());
  const size_t max_bytes = 2 * state_.config.max_body_bytes;
  for (size_t num_bytes = 0; num_bytes < max_bytes;) {
    auto [ec, count] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    if (ec) break;
    num_bytes += count;
  }
  keeps_alive_ = false;
}

net::awaitable<void> Connection::answer(const HttpRequest& request) {
  const Route* route = find_route(request.path);
  if (route == nullptr) {
    co_await send_error(
        ApiError(404, "invalid_request_error", "there is nothing at this path", "", "not_found"));
    co_return;
  }
  const std::string allowed(route->allowed_methods());
  if (request.method == "OPTIONS") {
    HttpReply reply;
    reply.status = 204;
    reply.headers.emplace_back("Allow", allowed);
    co_await send(std::move(reply));
  } else if (!route->allows(request.method)) {
    HttpReply reply = to_reply(ApiError(405,
                                        "invalid_request_error",
                                        fmt::format("{} takes {}", route->name, allowed),
                                        "",
                                        "method_not_allowed"));
    reply.headers.emplace_back("Allow", allowed);
    co_await send(std::move(reply));
  } else {
    co_await answer_route(*route, request);
  }
}

net::awaitable<void> Connection::answer_route(const Route& route, HttpRequest request) {
  HttpReply reply;
  std::optional<ApiError> error;
  Api& api = state_.api;
  switch (route.endpoint) {
    case Endpoint::kCompletions:
      co_return co_await generate(ApiKind::kCompletion, std::move(request.body));
    case Endpoint::kChatCompletions:
      co_return co_await generate(ApiKind::kChat, std::move(request.body));
    case Endpoint::kTokenize:
      error = co_await on_handlers([&] { reply.body = api.tokenize(request.body); });
      break;
    case Endpoint::kDetokenize:
      error = co_await on_handlers([&] { reply.body = api.detokenize(request.body); });
      break;
    case Endpoint::kMetrics:
      reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
      error = co_await on_handlers([&] {
        reply.body = state_.metrics.text(state_.engine.stats(), state_.engine.health().ok());
      });
      break;
    case Endpoint::kModels:
      reply.body = api.models();
      break;
    case Endpoint::kModel:
      try {
        reply.body = api.model(std::string(model_id_of(request.path)));
      } catch (const ApiError& unknown) {
        error = unknown;
      }
      break;
    case Endpoint::kHealth:
      reply = api.health(state_.is_draining);
      break;
    case Endpoint::kVersion:
      reply.body = api.version();
      break;
  }
  if (error) reply = to_reply(*error);  // No ?: inside co_await: g++ 12 evaluates both arms.
  co_await send(std::move(reply));
}

net::awaitable<void> Connection::generate(ApiKind kind, std::string body) {
  if (state_.is_draining) {
    keeps_alive_ = false;
    co_await send_error(shutting_down());
    co_return;
  }
  if (state_.engine.is_full(1)) {
    co_await send_error(server_is_full());
    co_return;
  }
  start_watch();
  PreparedCall prepared;
  std::optional<ApiError> error =
      co_await on_handlers([&] { prepared = state_.api.prepare(kind, body); });
  body = std::string();
  if (!error && !is_closed_) {
    co_await run_call(std::move(prepared));
  }
  call_.reset();
  co_await stop_watch();
  if (error && !is_closed_) co_await send_error(*error);
  if (is_closed_) status_ = kStatusClientGone;
}

net::awaitable<void> Connection::run_call(PreparedCall prepared) {
  CallMetrics metrics(state_.metrics,
                      arrival_,
                      prepared.response.n,
                      static_cast<int32_t>(prepared.response.prompts.size()));
  for (const GenerationRequest& request : prepared.requests) {
    state_.metrics.count_parameters(
        request.n, request.max_tokens, static_cast<int64_t>(request.prompt_ids.size()));
  }
  const auto notify = [weak = weak_from_this(), executor = stream_.get_executor()] {
    net::post(executor, [weak] {
      if (const auto self = weak.lock()) self->on_events();
    });
  };
  // Only a stream has a reader to wait for; other answers are gathered whole anyway.
  const size_t max_backlog_bytes = prepared.stream ? state_.config.max_backlog_bytes : SIZE_MAX;
  call_.emplace(state_.engine, notify, max_backlog_bytes);
  const Status status = call_->submit(std::move(prepared.requests));
  if (!status.ok()) {
    metrics.fail();
    co_await send_error(error_from_status(status));
  } else if (prepared.stream) {
    co_await answer_stream(std::move(prepared.response), metrics);
  } else {
    co_await answer_whole(std::move(prepared.response), metrics);
  }
}

ApiError Connection::on_failure(const GenerationFailure& failure, CallMetrics& metrics) const {
  log_warning("request {} failed: {}", request_id_, failure.status.to_string());
  metrics.fail();
  return error_from_status(failure.status);
}

net::awaitable<void> Connection::answer_whole(ResponseContext context, CallMetrics& metrics) {
  ResponseBody response(std::move(context));
  std::optional<ApiError> error;
  while (!response.progress().is_complete()) {
    for (CallEvent& event : call_->take()) {
      if (auto* delta = std::get_if<GenerationDelta>(&event.event)) {
        metrics.add(event.prompt_idx, event.when, *delta);
        response.add(event.prompt_idx, std::move(*delta));
      } else if (auto* scores = std::get_if<PromptScores>(&event.event)) {
        response.add(event.prompt_idx, std::move(*scores));
      } else if (!error) {
        error = on_failure(std::get<GenerationFailure>(event.event), metrics);
      }
    }
    if (!error && state_.is_aborting) error = shutting_down();
    if (is_closed_ || error || response.progress().is_complete()) break;
    co_await wait_for_wake(std::chrono::hours(1));
  }
  call_.reset();
  if (is_closed_) co_return;
  HttpReply reply;
  if (!error) error = co_await on_handlers([&] { reply.body = response.json(); });
  if (error) reply = to_reply(*error);  // No ?: inside co_await: g++ 12 evaluates both arms.
  co_await send(std::move(reply));
}

net::awaitable<void> Connection::answer_stream(ResponseContext context, CallMetrics& metrics) {
  ResponseStream response(std::move(context));
  std::optional<ApiError> error;
  TimePoint last_write = steady_clock().now();
  const Duration interval = state_.config.keep_alive_interval;
  while (true) {
    std::string events;
    for (CallEvent& event : call_->take()) {
      if (const auto* delta = std::get_if<GenerationDelta>(&event.event)) {
        metrics.add(event.prompt_idx, event.when, *delta);
        events += response.add(event.prompt_idx, *delta);
      } else if (auto* scores = std::get_if<PromptScores>(&event.event)) {
        response.add(event.prompt_idx, std::move(*scores));
      } else if (!error) {
        error = on_failure(std::get<GenerationFailure>(event.event), metrics);
      }
    }
    if (!error && state_.is_aborting) error = shutting_down();
    const bool is_complete = response.progress().is_complete();
    if (is_complete && !error) events += response.finish();
    const bool is_quiet = steady_clock().now() - last_write >= interval;
    if (events.empty() && !error && is_quiet) events = kSseKeepAlive;
    if (is_closed_) co_return;
    if (events.empty() && !error) {
      co_await wait_for_wake(last_write + interval - steady_clock().now());
      continue;
    }
    // While this suspends events may come and wake nobody: the mailbox is looked at again after.
    if (!events.empty()) co_await write_events(std::move(events));
    last_write = steady_clock().now();
    if (is_closed_) co_return;
    if (error) co_return co_await fail_stream(*error);
    if (is_complete) co_return co_await end_stream();
  }
}

// The head goes out with the first event, so that a request that fails before has an HTTP status.
net::awaitable<void> Connection::write_events(std::string events) {
  if (!has_stream_head_) {
    has_stream_head_ = true;
    status_ = 200;
    http::response<http::empty_body> head(http::status::ok, http_version_);
    head.set(http::field::content_type, "text/event-stream; charset=utf-8");
    head.set(http::field::cache_control, "no-cache");
    head.set("X-Accel-Buffering", "no");
    if (http_version_ == 10) keeps_alive_ = false;  // It knows no chunks: the end is the close.
    set_common_headers(&head);
    if (http_version_ != 10) head.chunked(true);
    http::response_serializer<http::empty_body> serializer(head);
    stream_.expires_after(state_.config.write_timeout);
    auto [ec, count] = co_await http::async_write_header(stream_, serializer, kAwait);
    check_write(ec);
    if (is_closed_) co_return;
  }
  stream_.expires_after(state_.config.write_timeout);
  if (http_version_ == 10) {
    auto [ec, count] = co_await net::async_write(stream_, net::buffer(events), kAwait);
    check_write(ec);
  } else {
    auto [ec, count] =
        co_await net::async_write(stream_, http::make_chunk(net::buffer(events)), kAwait);
    check_write(ec);
  }
}

net::awaitable<void> Connection::end_stream() {
  if (http_version_ == 10) co_return;
  stream_.expires_after(state_.config.write_timeout);
  auto [ec, count] = co_await net::async_write(stream_, http::make_chunk_last(), kAwait);
  check_write(ec);
}

net::awaitable<void> Connection::fail_stream(const ApiError& error) {
  call_.reset();
  if (!has_stream_head_) co_return co_await send_error(error);
  keeps_alive_ = false;
  co_await write_events(sse_error(error));
  if (!is_closed_) co_await end_stream();
}

void Connection::on_events() {
  wake_.cancel();
  if (call_ && call_->overflowed()) {
    log_warning("request {}: cut off, its reader does not keep up", request_id_);
    close();
  }
}

// While a request is answered nothing else reads, so the end of the client's side would be noticed
// too late. Bytes that come are the next requests: they are kept for their turn.
void Connection::start_watch() {
  is_watching_ = true;
  net::co_spawn(
      stream_.get_executor(),
      [self = shared_from_this()] { return self->watch(); },
      net::bind_cancellation_slot(watch_cancellation_.slot(), net::detached));
}

net::awaitable<void> Connection::watch() {
  const auto self = shared_from_this();
  co_await net::this_coro::throw_if_cancelled(false);
  while (is_watching_ && buffer_.size() < kMaxPipelinedBytes) {
    auto [ec, count] =
        co_await stream_.socket().async_read_some(buffer_.prepare(kReadBytes), kAwait);
    buffer_.commit(count);
    if (ec) {
      if (ec != net::error::operation_aborted) is_closed_ = true;
      break;
    }
  }
  is_watching_ = false;
  wake_.cancel();
}

net::awaitable<void> Connection::stop_watch() {
  while (is_watching_) {
    watch_cancellation_.emit(net::cancellation_type::all);
    co_await wait_for_wake(std::chrono::milliseconds(10));
  }
}

net::awaitable<void> Connection::wait_for_wake(Duration time) {
  wake_.expires_after(std::max(time, Duration::zero()));
  co_await wake_.async_wait(kAwait);
}

// Runs work that may take long on the handlers' threads.
net::awaitable<std::optional<ApiError>> Connection::on_handlers(std::function<void()> work) {
  auto task = [&work, this]() -> net::awaitable<std::optional<ApiError>> {
    try {
      work();
      co_return std::nullopt;
    } catch (const ApiError& error) {
      co_return error;
    } catch (const std::exception& error) {
      log_error("request {}: {}", request_id_, error.what());
      co_return ApiError(500, "server_error", "internal error");
    }
  };
  co_return co_await net::co_spawn(state_.handlers.get_executor(), task, net::use_awaitable);
}

template <typename Response>
void Connection::set_common_headers(Response* response) const {
  response->set("X-Request-Id", request_id_);
  for (const auto& [name, value] : cors_headers_) response->set(name, value);
  response->keep_alive(keeps_alive_);
}

net::awaitable<void> Connection::send(HttpReply reply) {
  status_ = reply.status;
  http::response<http::string_body> response(static_cast<http::status>(reply.status),
                                             http_version_);
  if (reply.status != 204) response.set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  set_common_headers(&response);
  response.body() = std::move(reply.body);
  response.prepare_payload();
  http::response_serializer<http::string_body> serializer(response);
  stream_.expires_after(state_.config.write_timeout);
  if (is_head_) {
    auto [ec, count] = co_await http::async_write_header(stream_, serializer, kAwait);
    check_write(ec);
  } else {
    auto [ec, count] = co_await http::async_write(stream_, serializer, kAwait);
    check_write(ec);
  }
}

void Connection::check_write(error_code ec) {
  if (!ec) return;
  if (ec == beast::error::timeout) {
    log_warning("request {}: cut off, its reader has stalled", request_id_);
  }
  is_closed_ = true;
}

}  // namespace

net::awaitable<void> serve_connection(tcp::socket socket, ServerState& state) {
  co_await std::make_shared<Connection>(std::move(socket), state)->run();
}

net::awaitable<void> refuse_connection(tcp::socket socket) {
  beast::tcp_stream stream(std::move(socket));
  HttpReply reply = to_reply(error_from_status(resource_exhausted("too many connections")));
  const std::string text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: {}\r\n"
      "Connection: close\r\nContent-Length: {}\r\n\r\n{}",
      kRetryAfterSeconds,
      reply.body.size(),
      reply.body);
  stream.expires_after(std::chrono::seconds(1));
  co_await net::async_write(stream, net::buffer(text), kAwait);
  error_code ignored;
  stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  char unread[1024];
  while (true) {
    auto [ec, count] = co_await stream.async_read_some(net::buffer(unread), kAwait);
    if (ec) break;
  }
}

}  // namespace lamina::server
