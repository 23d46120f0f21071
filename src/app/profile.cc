#include "app/profile.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "app/cpus.h"
#include "app/flags.h"
#include "app/loading.h"
#include "app/memory.h"
#include "app/output.h"
#include "app/placement.h"
#include "base/error.h"
#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "device/thread_pool.h"
#include "planner/model_source.h"
#include "planner/profile/meter.h"

namespace lamina::app {
namespace {

LoadedModel load(const ProfileOptions& options, const ProcessCpus& cpus) {
  return load_model({.model = options.model,
                     .device = options.device,
                     .max_num_seqs = options.max_batch,
                     .skip_tokenizer_init = true},
                    /*chat_template=*/"",
                    cpus);
}

// What is measured, and with what; parents first.
class Profiler {
 public:
  explicit Profiler(const ProfileOptions& options)
      : options_(options),
        cpus_(settle(options.cpus)),
        work_(planner::read_model_work(options.model)),
        device_(parse_device(options.device).value_or_throw()),
        attention_device_(options.attention_device.empty()
                              ? device_
                              : parse_device(options.attention_device).value_or_throw()) {
    if (attention_device_.kind != device_.kind) {
      throw Error(StatusCode::kUnimplemented,
                  "--attention-device: a profile is of CPUs or of GPUs, not of both");
    }
    is_gpu() ? open_gpus() : open_pool();
    if (options.slices) load_slices();
    if (!is_gpu()) {
      meter_ = planner::make_host_meter(
          {.transport = parse_transport(options.transport).value(), .time = time()},
          stream(),
          stream(),
          metered());
      return;
    }
    meter_ = planner::make_gpu_meter({.time = time()}, stream(), attention_stream(), metered());
  }

  [[nodiscard]] planner::Profile measure() {
    planner::Profile profile{
        .machine = fmt::format("shapes of {}", work_.name),
        .device = options_.device_name.empty() ? (is_gpu() ? "cuda" : "cpu") : options_.device_name,
        .transport = is_gpu() ? "cuda_p2p" : options_.transport,
        .threads = cpus_.share.num_threads,
        .memory_bytes = static_cast<double>(is_gpu() ? cuda::memory_of(device_).total_bytes
                                                     : available_memory_bytes()),
        .model = loaded_ ? work_.name : ""};
    auto grid = planner::ProfileGrid::of(work_, options_.max_batch, options_.max_context);
    if (loaded_) grid.add_slices(options_.max_batch);
    if (is_gpu() && gpus_.size() == 1) grid.message_bytes.clear();
    planner::measure(*meter_, grid, profile);
    return profile;
  }

 private:
  [[nodiscard]] bool is_gpu() const { return device_.kind == DeviceKind::kCuda; }
  [[nodiscard]] Duration time() const {
    return std::chrono::microseconds(static_cast<int64_t>(1e3 * options_.point_ms));
  }
  StreamView stream() { return is_gpu() ? gpus_.front()->view() : StreamView(*pool_); }
  StreamView attention_stream() { return gpus_.back()->view(); }
  [[nodiscard]] const planner::MeteredModel* metered() const {
    return metered_ ? &*metered_ : nullptr;
  }

  void open_pool() { pool_.emplace(cpus_.share.num_threads, cpus_.share.cpus); }
  void open_gpus() {
    gpus_.push_back(std::make_unique<GpuStream>(device_));
    if (attention_device_ != device_) {
      gpus_.push_back(std::make_unique<GpuStream>(attention_device_));
    }
  }
  void load_slices() {
    loaded_ = load(options_, cpus_);
    const std::array streams = {stream()};
    metered_ = {loaded_->program.rank_models(streams).front(), loaded_->program.step_limits()};
  }

  const ProfileOptions& options_;
  ProcessCpus cpus_;
  ModelWork work_;
  Device device_;
  Device attention_device_;
  std::optional<ThreadPool> pool_;
  std::vector<std::unique_ptr<GpuStream>> gpus_;
  std::optional<LoadedModel> loaded_;
  std::optional<planner::MeteredModel> metered_;
  std::unique_ptr<planner::Meter> meter_;
};

}  // namespace

CLI::App* add_profile(CLI::App& root, ProfileOptions& options) {
  CLI::App* const app = root.add_subcommand(
      "profile", "Measure this machine's products, attention and transport for `lamina plan`");
  Flags flags(*app);
  flags.add(
      "model",
      options.model,
      "Whose shapes to measure: Hugging Face folder, GGUF file, config.json or built-in name");
  flags.add_device("--device", options.device, "What is measured: cpu, cuda or cuda:N");
  flags.add_device("--attention-device",
                   options.attention_device,
                   "Another GPU that has attention, for round trips between both");
  flags.add("--device-name", options.device_name, "What plans call it (default: cpu or cuda)");
  flags.add("--max-batch", options.max_batch, "Most sequences of a step")
      ->check(CLI::Range(1, 4096));
  flags.add("--max-context", options.max_context, "Longest context of them")
      ->check(CLI::Range(1, 1 << 20));
  flags
      .add("--transport", options.transport, "Whose round trips between CPUs: loopback, shm or tcp")
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
  const planner::Profile profile = Profiler(options).measure();
  write_output(options.output, profile.to_yaml());
  std::fputs(planner::ProfileFit(profile).residuals(profile).c_str(), stdout);
  return 0;
}

}  // namespace lamina::app
