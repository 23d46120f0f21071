// The one binary: reads the command line and runs the program asked for.
#include <fmt/format.h>

#include <cstdio>

#include "app/attention_worker.h"
#include "app/bench_transport.h"
#include "app/command_line.h"
#include "app/plan.h"
#include "app/profile.h"
#include "app/run.h"
#include "app/serve.h"
#include "app/signals.h"
#include "app/small_programs.h"
#include "base/error.h"
#include "base/log.h"
#include "transport/measure/peer.h"

namespace lamina::app {
namespace {

int run_program(const Options& options) {
  switch (options.command) {
    case Command::kServe:
      log_info("options: {}", options.effective);
      return run_serve(options.serve, options.log_level);
    case Command::kAttentionWorker:
      return run_attention_worker(options.attention_worker);
    case Command::kRun:
      return run_chat(options.run, options.log_level);
    case Command::kConvert:
      return run_convert(options.convert);
    case Command::kCollectEnv:
      return run_collect_env();
    case Command::kBenchTransport:
      return run_bench_transport(options.bench_transport);
    case Command::kPlan:
      return run_plan(options.plan);
    case Command::kProfile:
      return run_profile(options.profile);
  }
  return 1;
}

std::string_view role_of(Command command) {
  switch (command) {
    case Command::kServe:
      return "serve";
    case Command::kAttentionWorker:
      return "attention-worker";
    case Command::kRun:
      return "run";
    case Command::kConvert:
      return "convert";
    case Command::kCollectEnv:
      return "collect-env";
    case Command::kBenchTransport:
      return "bench-transport";
    case Command::kPlan:
      return "plan";
    case Command::kProfile:
      return "profile";
  }
  return "lamina";
}

// What `lamina bench transport` starts as its other side.
bool is_transport_peer(int argc, char** argv) {
  return argc == 2 && argv[1] == measure::kPeerArgument;
}

}  // namespace
}  // namespace lamina::app

int main(int argc, char** argv) {
  using namespace lamina;
  try {
    if (app::is_transport_peer(argc, argv)) {
      init_logging(LogLevel::kWarning, measure::kPeerArgument);
      return measure::run_peer();
    }
    int exit_code = 0;
    const auto options = app::parse_command_line(argc, argv, exit_code);
    if (!options) return exit_code;
    init_logging(parse_log_level(options->log_level), app::role_of(options->command));
    // A chat in the terminal ends by Ctrl-C as any program does; the others end in order.
    if (options->command == app::Command::kServe ||
        options->command == app::Command::kAttentionWorker) {
      app::block_termination_signals();
    }
    return app::run_program(*options);
  } catch (const std::exception& error) {
    std::fputs(fmt::format("error: {}\n", error.what()).c_str(), stderr);
    return 1;
  }
}
