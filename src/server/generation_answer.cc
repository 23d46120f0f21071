#include "server/generation_answer.h"

#include <utility>
#include <variant>

#include <boost/asio/post.hpp>

#include "base/log.h"
#include "server/handlers.h"

namespace lamina::server {

namespace net = boost::asio;

namespace {

ApiError shutting_down() {
  return error_from_status(unavailable("the server is shutting down"));
}

}  // namespace

net::awaitable<void> GenerationAnswer::run(ApiKind kind, std::string body) {
  Exchange& exchange = channel_.exchange();
  if (state_.is_draining) {
    exchange.keeps_alive = false;
    co_await channel_.send(to_reply(shutting_down()));
    co_return;
  }
  if (state_.engine.is_full(1)) {
    co_await channel_.send(to_reply(server_is_full()));
    co_return;
  }
  channel_.start_watch();
  PreparedCall prepared;
  const std::optional<ApiError> refusal = co_await run_on_handlers(
      state_.handlers, exchange.request_id, [&] { prepared = state_.api.prepare(kind, body); });
  body = std::string();
  if (!refusal && !channel_.is_closed()) co_await run_call(std::move(prepared));
  call_.reset();
  co_await channel_.stop_watch();
  if (refusal && !channel_.is_closed()) co_await channel_.send(to_reply(*refusal));
  if (channel_.is_closed()) exchange.status = kStatusClientGone;
}

net::awaitable<void> GenerationAnswer::run_call(PreparedCall prepared) {
  CallMetrics metrics(state_.metrics,
                      channel_.exchange().arrival,
                      prepared.response.n,
                      static_cast<int32_t>(prepared.response.prompts.size()));
  for (const GenerationRequest& request : prepared.requests) {
    state_.metrics.count_parameters(
        request.n, request.max_tokens, static_cast<int64_t>(request.prompt_ids.size()));
  }
  const auto notify = [weak = weak_from_this(), executor = channel_.executor()] {
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
    co_await channel_.send(to_reply(error_from_status(status)));
  } else if (prepared.stream) {
    co_await answer_stream(std::move(prepared.response), metrics);
  } else {
    co_await answer_whole(std::move(prepared.response), metrics);
  }
}

void GenerationAnswer::on_events() {
  channel_.wake();
  if (call_ && call_->overflowed() && !channel_.is_closed()) {
    log_warning("request {}: cut off, its reader does not keep up", channel_.exchange().request_id);
    channel_.close();
  }
}

void GenerationAnswer::on_failure(const GenerationFailure& failure, CallMetrics& metrics) {
  if (error_) return;
  log_warning("request {} failed: {}", channel_.exchange().request_id, failure.status.to_string());
  metrics.fail();
  error_ = error_from_status(failure.status);
}

void GenerationAnswer::check_abort(const ResponseProgress& progress) {
  if (!error_ && state_.is_aborting && !progress.is_complete()) error_ = shutting_down();
}

void GenerationAnswer::take_events(ResponseBody* response, CallMetrics& metrics) {
  for (CallEvent& event : call_->take()) {
    if (auto* delta = std::get_if<GenerationDelta>(&event.event)) {
      metrics.add(event.prompt_idx, event.when, *delta);
      response->add(event.prompt_idx, std::move(*delta));
    } else if (auto* scores = std::get_if<PromptScores>(&event.event)) {
      response->add(event.prompt_idx, std::move(*scores));
    } else {
      on_failure(std::get<GenerationFailure>(event.event), metrics);
    }
  }
}

std::string GenerationAnswer::take_events(ResponseStream* response, CallMetrics& metrics) {
  std::string events;
  for (CallEvent& event : call_->take()) {
    if (const auto* delta = std::get_if<GenerationDelta>(&event.event)) {
      metrics.add(event.prompt_idx, event.when, *delta);
      events += response->add(event.prompt_idx, *delta);
    } else if (auto* scores = std::get_if<PromptScores>(&event.event)) {
      response->add(event.prompt_idx, std::move(*scores));
    } else {
      on_failure(std::get<GenerationFailure>(event.event), metrics);
    }
  }
  return events;
}

net::awaitable<void> GenerationAnswer::answer_whole(ResponseContext context, CallMetrics& metrics) {
  ResponseBody response(std::move(context));
  while (!response.progress().is_complete()) {
    take_events(&response, metrics);
    check_abort(response.progress());
    if (channel_.is_closed() || error_ || response.progress().is_complete()) break;
    co_await channel_.wait_for_wake(std::chrono::hours(1));
  }
  call_.reset();
  if (channel_.is_closed()) co_return;
  HttpReply reply;
  if (!error_) {
    error_ = co_await run_on_handlers(
        state_.handlers, channel_.exchange().request_id, [&] { reply.body = response.json(); });
  }
  if (error_) reply = to_reply(*error_);  // No ?: inside co_await: g++ 12 evaluates both arms.
  co_await channel_.send(std::move(reply));
}

net::awaitable<void> GenerationAnswer::answer_stream(ResponseContext context,
                                                     CallMetrics& metrics) {
  ResponseStream response(std::move(context));
  TimePoint last_write = steady_clock().now();
  const Duration interval = state_.config.keep_alive_interval;
  while (true) {
    std::string events = take_events(&response, metrics);
    check_abort(response.progress());
    const bool is_complete = response.progress().is_complete();
    if (is_complete && !error_) events += response.finish();
    const bool is_quiet = steady_clock().now() - last_write >= interval;
    if (events.empty() && !error_ && is_quiet) events = kSseKeepAlive;
    if (channel_.is_closed()) co_return;
    if (events.empty() && !error_) {
      co_await channel_.wait_for_wake(last_write + interval - steady_clock().now());
      continue;
    }
    // While this suspends events may come and wake nobody: the mailbox is looked at again after.
    if (!events.empty()) co_await channel_.write_events(std::move(events));
    last_write = steady_clock().now();
    if (channel_.is_closed()) co_return;
    if (error_) co_return co_await fail_stream(*error_);
    if (is_complete) co_return co_await channel_.end_events();
  }
}

net::awaitable<void> GenerationAnswer::fail_stream(const ApiError& error) {
  call_.reset();
  if (!channel_.has_begun_events()) {
    co_await channel_.send(to_reply(error));
    co_return;
  }
  channel_.exchange().keeps_alive = false;
  co_await channel_.write_events(sse_error(error));
  if (!channel_.is_closed()) co_await channel_.end_events();
}

}  // namespace lamina::server
