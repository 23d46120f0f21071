#include "app/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "app/command_line.h"
#include "app/flags.h"
#include "app/output.h"
#include "base/clock.h"
#include "base/error.h"
#include "planner/advice.h"
#include "planner/catalogue/device_catalogue.h"
#include "planner/load/trace_files.h"
#include "planner/model_source.h"
#include "planner/profile/profiled_costs.h"
#include "planner/report/advice_report.h"
#include "planner/report/plan_charts.h"

namespace lamina::app {
namespace {

using planner::AdviceRequest;
using planner::DeviceCatalogue;
using planner::Load;

// "h20=3.5".
void apply_price(DeviceCatalogue& catalogue, const std::string& text) {
  const size_t equals = text.find('=');
  double dollars = 0;
  const bool is_price = equals != std::string::npos &&
                        CLI::detail::lexical_cast(text.substr(equals + 1), dollars) &&
                        dollars > 0 && dollars < 1e6;
  if (!is_price) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--price: '{}' is not DEVICE=DOLLARS_PER_HOUR", text));
  }
  catalogue.set_price(text.substr(0, equals), dollars);
}

// A profile with its fits, and what they make of placements of a model.
struct MeasuredMachine {
  explicit MeasuredMachine(const std::string& path)
      : profile(planner::Profile::read(path)), fit(profile) {}

  [[nodiscard]] planner::CostsOf costs_of(const ModelWork& model) const {
    return [this, &model](const PlacementSpec& placement, const KvPartition& partition) {
      return std::make_unique<planner::ProfiledCosts>(model, placement, partition, fit);
    };
  }

  planner::Profile profile;
  planner::ProfileFit fit;
};

DeviceCatalogue catalogue_of(const PlanOptions& options,
                             const std::optional<MeasuredMachine>& machine) {
  DeviceCatalogue catalogue = DeviceCatalogue::built_in();
  if (machine) {
    catalogue.add_device({.spec = machine->fit.device(machine->profile),
                          .source = options.profile + ": " + machine->profile.machine,
                          .price = {}});
  }
  if (!options.devices.empty()) catalogue.add_file(options.devices);
  for (const std::string& price : options.prices) apply_price(catalogue, price);
  return catalogue;
}

Load load_of(const PlanOptions& options) {
  if (!options.trace.empty()) {
    Load load = planner::read_trace(options.trace);
    return options.rate < 0 ? load : planner::with_rate(std::move(load), options.rate);
  }
  const auto prompt = planner::LengthDistribution::parse(options.prompt_tokens);
  const auto generated = planner::LengthDistribution::parse(options.generated_tokens);
  const double rate = std::max(options.rate, 0.0);
  const Load drawn = planner::draw_load({.prompt = prompt,
                                         .generated = generated,
                                         .requests_per_s = rate,
                                         .num_requests = options.num_requests,
                                         .seed = options.seed});
  // Means as they were told; those of the draw are near.
  Load load = planner::mean_load(drawn.name, prompt.mean(), generated.mean());
  load.context = drawn.context;
  if (prompt.is_fixed() && generated.is_fixed())
    load.context = prompt.mean() + generated.mean() / 2;
  load.longest = drawn.longest;
  load.requests_per_s = rate;
  load.requests = drawn.requests;
  return load;
}

Assumptions assumptions_of(const PlanOptions& options) {
  Assumptions assumptions = options.paper_assumptions ? Assumptions::paper() : Assumptions();
  assumptions.colocated_host_s = 1e-3 * options.host_ms;
  if (options.block_size > 0) assumptions.block_size = options.block_size;
  return assumptions;
}

planner::SearchSpace space_of(const PlanOptions& options) {
  planner::SearchSpace space{.max_model_devices = options.max_model_devices,
                             .max_attention_devices = options.max_attention_devices,
                             .max_colocated_devices = options.max_model_devices};
  for (const std::string& name : options.kv_cache_dtypes) {
    const DType dtype = name == "bfloat16" ? DType::kBF16
                        : name == "int8"   ? DType::kI8
                                           : DType::kF8E4M3;
    if (dtype != DType::kBF16) space.kv_dtypes.push_back(dtype);
  }
  return space;
}

std::vector<planner::CatalogueEntry> entries_of(const DeviceCatalogue& catalogue,
                                                const PlanOptions& options) {
  std::vector<planner::CatalogueEntry> entries;
  for (const std::string& name :
       std::set{options.model_device, options.attention_device, options.colocated_device}) {
    if (!name.empty()) entries.push_back(catalogue.entry(name));
  }
  return entries;
}

// Times are measured where nothing else takes part.
void measure_by(const MeasuredMachine& machine,
                const PlanOptions& devices,
                const ModelWork& model,
                AdviceRequest& request) {
  const std::string& name = machine.profile.device;
  const bool all = devices.model_device == name && devices.attention_device == name &&
                   devices.colocated_device == name;
  if (!all) return;
  request.question.measured = machine.costs_of(model);
  request.question.covers = [&machine](double num_sequences, double context) {
    return machine.fit.covers(num_sequences, context);
  };
  request.space.max_tensor_parallel = 1;
}

std::string answer(const PlanOptions& options,
                   const planner::ReportSubject& subject,
                   const planner::Advice& advice) {
  if (options.json) return planner::advice_json(subject, advice);
  if (options.svg) return planner::charts_svg(planner::plan_charts(*subject.request, advice));
  const std::string text = planner::advice_text(subject, advice);
  if (!options.html) return text;
  return planner::charts_html(
      fmt::format("Placements of {}", subject.request->question.model->name),
      text,
      planner::plan_charts(*subject.request, advice));
}

}  // namespace

CLI::App* add_plan(CLI::App& root, PlanOptions& options) {
  CLI::App* const app = root.add_subcommand(
      "plan", "Find the placement with the most tokens per dollar, beside homogeneous ones");
  Flags flags(*app);
  flags.add("model",
            options.model,
            "Hugging Face folder, GGUF file or config.json; or llama-33b, llama-65b, llama3-70b");
  flags.add(
      "--devices", options.devices, "YAML file of devices that replace or add to those known");
  flags.add("--profile",
            options.profile,
            "YAML file of `lamina profile`: a device of that name, and measured times where all "
            "devices of a placement are such");
  flags.add_list("--price", options.prices, "DEVICE=DOLLARS_PER_HOUR; may be repeated");
  flags.add("--model-device", options.model_device, "What holds the weights");
  flags.add("--attention-device", options.attention_device, "What holds the KV cache");
  flags.add("--colocated-device",
            options.colocated_device,
            "What homogeneous placements are made of (default: the model's device)");
  flags.add("--max-model-devices", options.max_model_devices, "How many may hold the model")
      ->check(CLI::Range(1, 64));
  flags.add("--max-attention-devices", options.max_attention_devices, "How many may hold KV")
      ->check(CLI::Range(1, 64));
  flags.add("--trace", options.trace, "Load: an Azure trace (.csv) or a Mooncake one (.jsonl)");
  flags.add("--prompt-tokens",
            options.prompt_tokens,
            "Load without a trace: 1155, normal:1155:300 or zipf:1.2:8192");
  flags.add("--generated-tokens", options.generated_tokens, "The same of what is generated");
  flags.add(
      "--rate", options.rate, "Requests a second; 0: all at once (default: the trace's, or 0)");
  flags.add("--requests", options.num_requests, "Requests of a load without a trace")
      ->check(CLI::Range(1, 1'000'000));
  flags.add("--seed", options.seed, "Of their draw");
  flags.add("--max-tbt-ms", options.max_tbt_ms, "Limit on the time between tokens; 0: none")
      ->check(CLI::NonNegativeNumber);
  flags
      .add("--max-ttft-ms",
           options.max_ttft_ms,
           "Limit on the time to the first token of 99 % of the requests, by replays; 0: none")
      ->check(CLI::NonNegativeNumber);
  flags.add("--host-ms", options.host_ms, "Milliseconds of the host in each colocated step")
      ->check(CLI::Range(0.0, 1e3));
  flags.add("--block-size", options.block_size, "Tokens of a KV block; 0: as assumed")
      ->check(CLI::Range(0, 1024));
  flags
      .add_list("--kv-cache-dtype",
                options.kv_cache_dtypes,
                "Also try KV of int8 or fp8; may be repeated")
      ->check(CLI::IsMember({"bfloat16", "int8", "fp8"}));
  flags.add_switch("--paper-assumptions",
                   options.paper_assumptions,
                   "As the paper's tables reckon: no reserve of memory, blocks of a token");
  flags.add_switch("--replay", options.replay, "Replay the load through the scheduler as well");
  flags.add_switch("--prefill-shared",
                   options.prefill_shared,
                   "In the replay prompts run on the model's devices, not elsewhere");
  CLI::Option* json = flags.add_switch("--json", options.json, "The answer as JSON");
  CLI::Option* html = flags.add_switch("--html", options.html, "Charts and answer as a page");
  CLI::Option* svg = flags.add_switch("--svg", options.svg, "The charts as a drawing");
  json->excludes(html)->excludes(svg);
  html->excludes(svg);
  flags.add("--output", options.output, "File to write (default: standard output)");
  return app;
}

int run_plan(const PlanOptions& options) {
  const TimePoint begin = steady_clock().now();
  std::optional<MeasuredMachine> machine;
  if (!options.profile.empty()) machine.emplace(options.profile);
  const DeviceCatalogue catalogue = catalogue_of(options, machine);
  const ModelWork model = planner::read_model_work(options.model);
  const Load load = load_of(options);
  PlanOptions devices = options;
  if (devices.colocated_device.empty()) devices.colocated_device = options.model_device;
  AdviceRequest request{.question = {.model = &model,
                                     .load = &load,
                                     .devices = {catalogue.priced(devices.model_device),
                                                 catalogue.priced(devices.attention_device)},
                                     .assumptions = assumptions_of(options),
                                     .limit = {}},
                        .colocated_device = catalogue.priced(devices.colocated_device),
                        .space = space_of(options),
                        .wants_replay = options.replay,
                        .prefill = options.prefill_shared ? simulate::Prefill::kShared
                                                          : simulate::Prefill::kElsewhere};
  if (options.max_tbt_ms > 0) request.question.limit.step_s = 1e-3 * options.max_tbt_ms;
  if (options.max_ttft_ms > 0) request.question.limit.first_token_s = 1e-3 * options.max_ttft_ms;
  if (machine) measure_by(*machine, devices, model, request);
  const planner::Advice advice = planner::advise(request);
  const planner::ReportSubject subject{
      .request = &request,
      .devices = entries_of(catalogue, devices),
      .search_s = std::chrono::duration<double>(steady_clock().now() - begin).count()};
  write_output(options.output, answer(options, subject, advice));
  return 0;
}

}  // namespace lamina::app
