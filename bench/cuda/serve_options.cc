#include "serve_options.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "app/attention_worker.h"
#include "app/command_line.h"
#include "app/signals.h"
#include "base/log.h"
#include "transport/measure/peer.h"

namespace lamina::bench {
namespace {

int run_program(std::vector<std::string> words,
                bool is_worker,
                const std::function<int(const app::ServeOptions& options)>& run) {
  init_logging(LogLevel::kWarning, is_worker ? "attention-worker" : "bench");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  int exit_code = 0;
  const auto options =
      app::parse_command_line(static_cast<int>(arguments.size()), arguments.data(), exit_code);
  if (!options) return exit_code;
  if (!is_worker) return run(options->serve);
  app::block_termination_signals();
  return app::run_attention_worker(options->attention_worker);
}

}  // namespace

int run_with_serve_options(
    int argc,
    char** argv,
    const std::string& model,
    const std::vector<std::string>& flags,
    const std::function<int(const app::ServeOptions& options, int64_t layers)>& run) {
  const std::string_view role = argc > 1 ? argv[1] : "";
  if (role == measure::kPeerArgument) return measure::run_peer();
  const bool is_worker = role == "attention-worker";
  std::vector<std::string> words(argv, argv + argc);
  if (!is_worker) {
    // Flags that were given come last: those count.
    words = {"lamina", "serve", argc > 1 ? argv[1] : model};
    words.insert(words.end(), flags.begin(), flags.end());
    for (int i = 3; i < argc; ++i) words.emplace_back(argv[i]);
  }
  const int64_t layers = argc > 2 && !is_worker ? std::atoi(argv[2]) : 0;
  try {
    return run_program(std::move(words), is_worker, [&](const app::ServeOptions& options) {
      return run(options, layers);
    });
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}

}  // namespace lamina::bench
