#include "app/profile.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <optional>

#include "app/cpus.h"
#include "app/flags.h"
#include "app/loading.h"
#include "app/memory.h"
#include "app/output.h"
#include "device/thread_pool.h"
#include "planner/model_source.h"
#include "planner/profile/meter.h"

namespace lamina::app {
namespace {

LoadedModel load(const ProfileOptions& options, const ProcessCpus& cpus) {
  return load_model(
      {.model = options.model, .max_num_seqs = options.max_batch, .skip_tokenizer_init = true},
      /*chat_template=*/"",
      cpus);
}

}  // namespace

CLI::App* add_profile(CLI::App& root, ProfileOptions& options) {
  CLI::App* const app = root.add_subcommand(
      "profile", "Measure this machine's products, attention and transport for `lamina plan`");
  Flags flags(*app);
  flags.add(
      "model",
      options.model,
      "Whose shapes to measure: Hugging Face folder, GGUF file, config.json or built-in name");
  flags.add("--device-name", options.device_name, "What plans call this machine");
  flags.add("--max-batch", options.max_batch, "Most sequences of a step")
      ->check(CLI::Range(1, 4096));
  flags.add("--max-context", options.max_context, "Longest context of them")
      ->check(CLI::Range(1, 1 << 20));
  flags.add("--transport", options.transport, "Whose round trips: loopback, shm or tcp")
      ->check(CLI::IsMember({"loopback", "shm", "tcp"}));
  flags.add("--threads", options.cpus.threads, "Threads that compute; 0: one for every core")
      ->check(CLI::Range(0, 1024));
  flags.add("--cpu-bind", options.cpus.cpu_bind, "Hardware threads that they stay on, as 0-3,8");
  flags.add_switch("--slices",
                   options.slices,
                   "Also measure the model's slices whole, which takes its weights: closer than a "
                   "sum of products, for plans of this model");
  flags.add("--point-ms", options.point_ms, "Milliseconds of each point")
      ->check(CLI::Range(0.01, 1e4));
  flags.add("--output", options.output, "File to write")->required();
  return app;
}

int run_profile(const ProfileOptions& options) {
  const ModelWork model = planner::read_model_work(options.model);
  const ProcessCpus cpus = settle(options.cpus);
  ThreadPool pool(cpus.share.num_threads, cpus.share.cpus);
  const TransportKind transport = options.transport == "tcp"   ? TransportKind::kTcp
                                  : options.transport == "shm" ? TransportKind::kShm
                                                               : TransportKind::kLoopback;
  std::optional<LoadedModel> loaded;
  if (options.slices) loaded = load(options, cpus);
  std::optional<planner::MeteredModel> metered;
  if (loaded) {
    const std::array streams = {StreamView(pool)};
    metered = {loaded->program.rank_models(streams).front(), loaded->program.step_limits()};
  }
  const auto meter = planner::make_host_meter(
      {.transport = transport,
       .time = std::chrono::microseconds(static_cast<int64_t>(1e3 * options.point_ms))},
      StreamView(pool),
      StreamView(pool),
      metered ? &*metered : nullptr);
  planner::Profile profile{.machine = fmt::format("shapes of {}", model.name),
                           .device = options.device_name,
                           .transport = options.transport,
                           .threads = cpus.share.num_threads,
                           .memory_bytes = static_cast<double>(available_memory_bytes()),
                           .model = loaded ? model.name : ""};
  auto grid = planner::ProfileGrid::of(model, options.max_batch, options.max_context);
  if (loaded) grid.add_slices(options.max_batch);
  planner::measure(*meter, grid, profile);
  write_output(options.output, profile.to_yaml());
  std::fputs(planner::ProfileFit(profile).residuals(profile).c_str(), stdout);
  return 0;
}

}  // namespace lamina::app
