// The engine's own speed, and its speed through the HTTP server as token streams: the same requests
// in turns, by one process. Prints a line a round and the medians; asserts nothing.
//   lamina_bench_serving [--clients 32] [--prompt 16] [--tokens 200] [--rounds 5] -- MODEL [flags]
// The flags are those of `lamina serve`.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <vector>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include "app/attention_worker.h"
#include "app/command_line.h"
#include "app/placement.h"
#include "app/signals.h"
#include "base/error.h"
#include "base/log.h"
#include "server/http_server.h"

namespace lamina {
namespace {

namespace net = boost::asio;
using net::ip::tcp;

constexpr Duration kTimeout = std::chrono::minutes(10);  // of a round

struct Load {
  int32_t clients = 32;
  int32_t prompt = 16;  // tokens
  int32_t tokens = 200;
  int32_t rounds = 5;

  [[nodiscard]] double num_generated() const { return static_cast<double>(clients) * tokens; }
};

std::vector<int32_t> prompt_ids(const Load& load, int32_t client) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < load.prompt; ++i) ids.push_back(1000 + client + i);
  return ids;
}

// Tokens a second of `run`, which generates all of a load.
template <typename Run>
double measure(const Load& load, const Run& run) {
  const TimePoint start = steady_clock().now();
  run();
  const Duration elapsed = steady_clock().now() - start;
  return load.num_generated() / std::chrono::duration<double>(elapsed).count();
}

void run_engine(Engine& engine, const Load& load) {
  std::vector<std::promise<Status>> ends(static_cast<size_t>(load.clients));
  for (int32_t i = 0; i < load.clients; ++i) {
    GenerationRequest request;
    request.id = fmt::format("bench-{}", i);
    request.prompt_ids = prompt_ids(load, i);
    request.max_tokens = load.tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 0.0F;
    std::promise<Status>& end = ends[static_cast<size_t>(i)];
    engine
        .submit(std::move(request),
                [&end](const GenerationEvent& event) {
                  const auto* delta = std::get_if<GenerationDelta>(&event);
                  const auto* failure = std::get_if<GenerationFailure>(&event);
                  if (failure != nullptr) end.set_value(failure->status);
                  if (delta != nullptr && delta->finish_reason) end.set_value({});
                })
        .value_or_throw();
  }
  for (std::promise<Status>& end : ends) {
    std::future<Status> ended = end.get_future();
    if (ended.wait_for(kTimeout) != std::future_status::ready) {
      throw Error(StatusCode::kDeadlineExceeded, "a request does not end");
    }
    throw_if_error(ended.get());
  }
}

std::string http_request(const Load& load, int32_t client) {
  const std::string body = fmt::format(
      R"({{"prompt":[{}],"max_tokens":{},"temperature":0,"ignore_eos":true,"stream":true}})",
      fmt::join(prompt_ids(load, client), ","),
      load.tokens);
  return fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Connection: close\r\nContent-Length: {}\r\n\r\n{}",
      body.size(),
      body);
}

// All clients in one thread, which looks at what comes for the end of the stream alone: what is
// measured is the server, as far as clients on the same cores allow it.
void run_http(uint16_t port, const Load& load) {
  net::io_context io;
  std::vector<tcp::socket> sockets;
  std::vector<pollfd> waiting;
  std::vector<std::string> tails(static_cast<size_t>(load.clients));
  for (int32_t i = 0; i < load.clients; ++i) {
    tcp::socket& socket = sockets.emplace_back(io);
    socket.connect({net::ip::address_v4::loopback(), port});
    net::write(socket, net::buffer(http_request(load, i)));
    waiting.push_back({.fd = socket.native_handle(), .events = POLLIN, .revents = 0});
  }
  const Deadline deadline = Deadline::after(kTimeout);
  std::array<char, 1 << 14> chunk{};
  for (int32_t num_open = load.clients; num_open > 0;) {
    if (deadline.has_passed()) throw Error(StatusCode::kDeadlineExceeded, "a stream does not end");
    ::poll(waiting.data(), waiting.size(), 1000);
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].revents == 0) continue;
      boost::system::error_code error;
      const size_t got = sockets[i].read_some(net::buffer(chunk), error);
      std::string& tail = tails[i];
      tail.append(chunk.data(), got);
      if (!error) {
        if (tail.size() > 64) tail.erase(0, tail.size() - 64);
        continue;
      }
      if (tail.find("[DONE]") == std::string::npos) {
        throw Error(StatusCode::kUnavailable, "a stream ended early: " + tail);
      }
      waiting[i].fd = -1;
      --num_open;
    }
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(const Load& load, const app::ServeOptions& options) {
  const app::ProcessCpus cpus = app::settle(options.placement.cpus);
  const app::LoadedModel model = app::load_model(options.model, options.chat_template, cpus);
  const app::Placement placement =
      app::place(options.placement, cpus, model, options.max_queued_requests, "warning");
  server::ServerConfig config;
  config.port = 0;
  config.served_model_names = {"bench"};
  config.vocab_size = model.files->config().vocab_size;
  server::HttpServer server(config, *placement.engine, model.tokenizer.get());
  server.start();
  run_engine(*placement.engine, load);  // warms up
  std::vector<double> ratios;
  std::vector<double> engines;
  for (int32_t round = 0; round < load.rounds; ++round) {
    const double engine = measure(load, [&] { run_engine(*placement.engine, load); });
    const double http = measure(load, [&] { run_http(server.port(), load); });
    ratios.push_back(http / engine);
    engines.push_back(engine);
    fmt::print("engine {:8.1f} tokens/s   HTTP streams {:8.1f}   ratio {:.3f}\n",
               engine,
               http,
               ratios.back());
    std::fflush(stdout);
  }
  fmt::print("medians: engine {:.1f} tokens/s, ratio {:.3f}\n", median(engines), median(ratios));
  server.stop(Deadline::expired());
  placement.engine->shutdown(Deadline::expired());
}

// Takes the program's own flags off the front; the rest is for `lamina serve`.
Load parse_load(std::vector<char*>& arguments) {
  Load load;
  const std::array<std::pair<std::string_view, int32_t*>, 4> flags = {{{"--clients", &load.clients},
                                                                       {"--prompt", &load.prompt},
                                                                       {"--tokens", &load.tokens},
                                                                       {"--rounds", &load.rounds}}};
  size_t i = 1;
  for (; i + 1 < arguments.size() && std::string_view(arguments[i]) != "--"; i += 2) {
    const auto* flag = std::find_if(
        flags.begin(), flags.end(), [&](const auto& known) { return known.first == arguments[i]; });
    if (flag == flags.end() || (*flag->second = std::atoi(arguments[i + 1])) < 1) {
      throw Error(StatusCode::kInvalidArgument, fmt::format("bad flag {}", arguments[i]));
    }
  }
  arguments.erase(arguments.begin() + 1,
                  arguments.begin() + static_cast<ptrdiff_t>(std::min(i + 1, arguments.size())));
  return load;
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  using namespace lamina;
  try {
    std::vector<char*> arguments(argv, argv + argc);
    // Local attention workers are started from this same program.
    const bool is_worker = argc > 1 && std::string_view(argv[1]) == "attention-worker";
    const Load load = is_worker ? Load() : parse_load(arguments);
    std::string command = "serve";
    if (!is_worker) arguments.insert(arguments.begin() + 1, command.data());
    int exit_code = 0;
    const auto options =
        app::parse_command_line(static_cast<int>(arguments.size()), arguments.data(), exit_code);
    if (!options) return exit_code;
    init_logging(LogLevel::kWarning, is_worker ? "attention-worker" : "serve");
    if (is_worker) {
      app::block_termination_signals();
      return app::run_attention_worker(options->attention_worker);
    }
    run(load, options->serve);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
