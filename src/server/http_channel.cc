#include "server/http_channel.h"

#include <algorithm>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "base/log.h"
#include "server/access.h"
#include "server/api.h"

namespace lamina::server {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using net::ip::tcp;

namespace {

using Parser = http::request_parser<http::string_body>;

constexpr auto kAwait = net::as_tuple(net::use_awaitable);
constexpr size_t kReadBytes = size_t{16} << 10;
// Requests that a client sends ahead of their turn; past this its departure goes unnoticed.
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;
constexpr auto kLingerTime = std::chrono::seconds(5);

std::string to_string(beast::string_view text) {
  return {text.data(), text.size()};
}

HttpRequest to_http_request(const Parser::value_type& message) {
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

// The client left, or never sent a whole header: there is nobody to answer.
bool is_silent_end(error_code ec) {
  return ec == http::error::end_of_stream || ec == http::error::partial_message ||
         ec == beast::error::timeout || ec == net::error::connection_reset;
}

// Whether the body's end is certain. Beast takes a body in an encoding that it does not know for
// none: what follows would be read as a request that a proxy in front has never seen.
bool has_known_framing(const Parser& parser) {
  const Parser::value_type& message = parser.get();
  return message.count(http::field::transfer_encoding) == 0 ||
         (parser.chunked() && message.version() == 11);
}

ApiError bad_http(error_code ec) {
  if (ec == http::error::header_limit) {
    return {431, "invalid_request_error", "the request's header is too large"};
  }
  return {400, "invalid_request_error", "not a valid HTTP request: " + ec.message()};
}

class BeastChannel final : public HttpChannel, public std::enable_shared_from_this<BeastChannel> {
 public:
  BeastChannel(tcp::socket socket, const ServerConfig& config)
      : config_(config),
        stream_(std::move(socket)),
        buffer_(config.max_header_bytes + kMaxPipelinedBytes + kReadBytes),
        wake_(stream_.get_executor()) {
    error_code ignored;
    (void)stream_.socket().set_option(tcp::no_delay(true), ignored);
  }

  net::any_io_executor executor() override { return stream_.get_executor(); }
  Exchange& exchange() override { return exchange_; }
  [[nodiscard]] bool is_closed() const override { return is_closed_; }
  void close() override;

  net::awaitable<std::optional<RequestHead>> read_head() override;
  net::awaitable<std::optional<ApiError>> read_body(std::string* body, BodyShare* share) override;
  net::awaitable<void> linger() override;

  net::awaitable<void> send(HttpReply reply) override;
  net::awaitable<void> write_events(std::string events) override;
  net::awaitable<void> end_events() override;
  [[nodiscard]] bool has_begun_events() const override { return has_begun_events_; }

  void start_watch() override;
  net::awaitable<void> stop_watch() override;

  net::awaitable<void> wait_for_wake(Duration time) override;
  void wake() override { wake_.cancel(); }

 private:
  net::awaitable<bool> wait_for_request();
  net::awaitable<error_code> read_whole_head();
  net::awaitable<error_code> read_whole_body(BodyShare* share);
  void begin_exchange(error_code ec);
  net::awaitable<void> begin_events();
  net::awaitable<void> watch();
  template <typename Response>
  void set_common_headers(Response* response) const;
  // Ends the connection if the write failed.
  void check_write(error_code ec);

  const ServerConfig& config_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;  // bounded: Beast gathers a chunk's header or a trailer whole
  net::steady_timer wake_;
  net::cancellation_signal watch_cancellation_;
  bool is_watching_ = false;
  bool is_closed_ = false;

  // Of the request at hand.
  std::optional<Parser> parser_;
  Exchange exchange_;
  unsigned http_version_ = 11;
  bool is_head_ = false;
  bool has_begun_events_ = false;
};

void BeastChannel::close() {
  is_closed_ = true;
  wake_.cancel();
  stream_.close();
}

net::awaitable<bool> BeastChannel::wait_for_request() {
  if (buffer_.size() > 0) co_return true;
  stream_.expires_after(config_.idle_timeout);
  auto [ec, count] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
  buffer_.commit(count);
  co_return !ec;
}

net::awaitable<std::optional<RequestHead>> BeastChannel::read_head() {
  parser_.reset();
  if (!co_await wait_for_request()) co_return std::nullopt;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(config_.max_header_bytes));
  parser_->body_limit(boost::none);  // Checked in read_body(), after the API key.
  const error_code ec = co_await read_whole_head();
  if (is_closed_ || is_silent_end(ec)) co_return std::nullopt;
  begin_exchange(ec);
  RequestHead head;
  if (ec) {
    head.error = bad_http(ec);
  } else if (!has_known_framing(*parser_)) {
    exchange_.keeps_alive = false;
    head.error = ApiError(400,
                          "invalid_request_error",
                          "the only Transfer-Encoding understood is chunked, over HTTP/1.1");
  } else {
    head.request = to_http_request(parser_->get());
    head.has_body = !parser_->is_done();
  }
  co_return head;
}

void BeastChannel::begin_exchange(error_code ec) {
  const Parser::value_type& message = parser_->get();
  http_version_ = message.version() == 10 ? 10 : 11;
  is_head_ = !ec && message.method() == http::verb::head;
  has_begun_events_ = false;
  exchange_ = Exchange();
  exchange_.arrival = steady_clock().now();
  exchange_.request_id = make_unique_id();
  exchange_.keeps_alive = !ec && message.keep_alive();
}

// Beast's own limit bounds each line, not their sum.
net::awaitable<error_code> BeastChannel::read_whole_head() {
  stream_.expires_after(config_.header_timeout);
  size_t num_bytes = 0;
  while (!parser_->is_header_done()) {
    auto [ec, count] = co_await http::async_read_some(stream_, buffer_, *parser_, kAwait);
    num_bytes += count;
    if (!ec && num_bytes > config_.max_header_bytes) ec = http::error::header_limit;
    if (ec) co_return ec;
  }
  co_return error_code();
}

// Counts everything that comes with the body: chunk headers and trailers too.
net::awaitable<error_code> BeastChannel::read_whole_body(BodyShare* share) {
  stream_.expires_after(config_.body_timeout);
  size_t num_bytes = 0;
  while (!parser_->is_done()) {
    auto [ec, count] = co_await http::async_read_some(stream_, buffer_, *parser_, kAwait);
    num_bytes += count;
    if (!ec && num_bytes / 2 > config_.max_body_bytes) ec = http::error::body_limit;
    if (!ec && !share->grow(count)) ec = net::error::no_memory;
    if (ec) co_return ec;
  }
  co_return error_code();
}

net::awaitable<std::optional<ApiError>> BeastChannel::read_body(std::string* body,
                                                                BodyShare* share) {
  const uint64_t limit = config_.max_body_bytes;
  const ApiError too_large(
      413, "invalid_request_error", fmt::format("the body is larger than {} bytes", limit));
  if (parser_->content_length().value_or(0) > limit) co_return too_large;
  parser_->body_limit(limit);
  if (beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    stream_.expires_after(config_.write_timeout);
    co_await net::async_write(stream_, net::buffer(kContinue), kAwait);
  }
  const error_code ec = co_await read_whole_body(share);
  if (!ec) {
    *body = std::move(parser_->get().body());
    co_return std::nullopt;
  }
  if (ec == http::error::body_limit) co_return too_large;
  if (ec == net::error::no_memory) {
    co_return error_from_status(
        resource_exhausted("the server is busy with large requests; try again later"));
  }
  if (ec == beast::error::timeout) {
    is_closed_ = true;  // The stream has closed its socket.
    exchange_.status = 408;
    co_return std::nullopt;
  }
  if (ec.category() == make_error_code(http::error::bad_chunk).category() &&
      ec != http::error::partial_message) {
    co_return bad_http(ec);
  }
  is_closed_ = true;
  exchange_.status = kStatusClientGone;
  co_return std::nullopt;
}

net::awaitable<void> BeastChannel::linger() {
  error_code ignored;
  (void)stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLingerTime);
  buffer_.consume(buffer_.size());
  const size_t max_bytes = 2 * config_.max_body_bytes;
  for (size_t num_bytes = 0; num_bytes < max_bytes;) {
    auto [ec, count] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    if (ec) break;
    num_bytes += count;
  }
  exchange_.keeps_alive = false;
}

template <typename Response>
void BeastChannel::set_common_headers(Response* response) const {
  response->set("X-Request-Id", exchange_.request_id);
  for (const auto& [name, value] : exchange_.cors_headers) response->set(name, value);
  response->keep_alive(exchange_.keeps_alive);
}

net::awaitable<void> BeastChannel::send(HttpReply reply) {
  exchange_.status = reply.status;
  http::response<http::string_body> response(static_cast<http::status>(reply.status),
                                             http_version_);
  if (reply.status != 204) response.set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  set_common_headers(&response);
  response.body() = std::move(reply.body);
  response.prepare_payload();
  http::response_serializer<http::string_body> serializer(response);
  stream_.expires_after(config_.write_timeout);
  if (is_head_) {
    auto [ec, count] = co_await http::async_write_header(stream_, serializer, kAwait);
    check_write(ec);
  } else {
    auto [ec, count] = co_await http::async_write(stream_, serializer, kAwait);
    check_write(ec);
  }
}

net::awaitable<void> BeastChannel::begin_events() {
  has_begun_events_ = true;
  exchange_.status = 200;
  http::response<http::empty_body> head(http::status::ok, http_version_);
  head.set(http::field::content_type, "text/event-stream; charset=utf-8");
  head.set(http::field::cache_control, "no-cache");
  head.set("X-Accel-Buffering", "no");
  // HTTP/1.0 knows no chunks: the end is the close.
  if (http_version_ == 10) exchange_.keeps_alive = false;
  set_common_headers(&head);
  if (http_version_ != 10) head.chunked(true);
  http::response_serializer<http::empty_body> serializer(head);
  stream_.expires_after(config_.write_timeout);
  auto [ec, count] = co_await http::async_write_header(stream_, serializer, kAwait);
  check_write(ec);
}

net::awaitable<void> BeastChannel::write_events(std::string events) {
  if (!has_begun_events_) {
    co_await begin_events();
    if (is_closed_) co_return;
  }
  stream_.expires_after(config_.write_timeout);
  if (http_version_ == 10) {
    auto [ec, count] = co_await net::async_write(stream_, net::buffer(events), kAwait);
    check_write(ec);
  } else {
    auto [ec, count] =
        co_await net::async_write(stream_, http::make_chunk(net::buffer(events)), kAwait);
    check_write(ec);
  }
}

net::awaitable<void> BeastChannel::end_events() {
  if (http_version_ == 10) co_return;
  stream_.expires_after(config_.write_timeout);
  auto [ec, count] = co_await net::async_write(stream_, http::make_chunk_last(), kAwait);
  check_write(ec);
}

void BeastChannel::check_write(error_code ec) {
  if (!ec) return;
  if (ec == beast::error::timeout) {
    log_warning("request {}: cut off, its reader has stalled", exchange_.request_id);
  }
  is_closed_ = true;
}

void BeastChannel::start_watch() {
  is_watching_ = true;
  net::co_spawn(
      stream_.get_executor(),
      [self = shared_from_this()] { return self->watch(); },
      net::bind_cancellation_slot(watch_cancellation_.slot(), net::detached));
}

net::awaitable<void> BeastChannel::watch() {
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

net::awaitable<void> BeastChannel::stop_watch() {
  while (is_watching_) {
    watch_cancellation_.emit(net::cancellation_type::all);
    co_await wait_for_wake(std::chrono::milliseconds(10));
  }
}

net::awaitable<void> BeastChannel::wait_for_wake(Duration time) {
  wake_.expires_after(std::max(time, Duration::zero()));
  co_await wake_.async_wait(kAwait);
}

}  // namespace

std::shared_ptr<HttpChannel> open_http_channel(tcp::socket socket, const ServerConfig& config) {
  return std::make_shared<BeastChannel>(std::move(socket), config);
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
  (void)stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  char unread[1024];
  while (true) {
    auto [ec, count] = co_await stream.async_read_some(net::buffer(unread), kAwait);
    if (ec) break;
  }
}

}  // namespace lamina::server
