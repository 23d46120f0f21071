#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner/report/advice_report.h"

namespace lamina::planner {
namespace {

constexpr size_t kMaxRows = 12;

std::string devices_text(const ReportSubject& subject) {
  std::string text;
  for (const CatalogueEntry& entry : subject.devices) {
    const DeviceSpec& device = entry.spec;
    text += fmt::format(
        "  {:<12} {:.0f} TFLOP/s, {:.0f} GB at {:.2f} TB/s, NIC {:.0f} Gbit/s ({})\n"
        "  {:<12} ${:.2f}/h, {} ({})\n",
        device.name,
        device.flop_per_s / 1e12,
        device.memory_bytes / 1e9,
        device.memory_bytes_per_s / 1e12,
        device.network_bytes_per_s * 8 / 1e9,
        entry.source,
        "",
        device.dollars_per_h,
        entry.price->date,
        entry.price->source);
  }
  return text;
}

std::string assumptions_text(const Assumptions& a) {
  return fmt::format(
      "  products {:.0f} % of FLOP/s, weights {:.0f} % and KV {:.0f} % of bandwidth, network "
      "{:.1f} % "
      "of line rate,\n  {:.1f} us a round trip, {:.1f} us an all-reduce{}, {:.1f} ms of host in a "
      "colocated step;\n  {:.0f} % of memory, {:.1f} GiB of a device kept, blocks of {} tokens; "
      "decoding "
      "alone: prompts come from elsewhere\n",
      100 * a.flop_efficiency,
      100 * a.weight_efficiency,
      100 * a.kv_efficiency,
      100 * a.network_efficiency,
      1e6 * a.round_trip_s,
      1e6 * a.all_reduce_s,
      a.counts_reduced_bytes ? " and its bytes" : "",
      1e3 * a.colocated_host_s,
      100 * a.memory_utilization,
      static_cast<double>(a.reserved_bytes) / (1 << 30),
      a.block_size);
}

std::string head(const ReportSubject& subject) {
  const Question& question = subject.request->question;
  const Load& load = *question.load;
  std::string text = fmt::format(
      "{}: {:.1f} GB of weights, {:.3f} MB of KV a token\n"
      "load {}: {:.1f} tokens of prompt, {:.1f} generated, {:.1f} of context while decoding",
      question.model->name,
      question.model->weight_bytes / 1e9,
      static_cast<double>(question.model->kv_layout(DType::kBF16, 1).block_bytes()) / 1e6,
      load.name,
      load.mean_prompt,
      load.mean_generated,
      load.context);
  if (load.requests_per_s > 0) {
    text += fmt::format(
        "\n  {:.3g} requests/s, {:.0f} tokens/s", load.requests_per_s, load.tokens_per_s());
  }
  if (std::isfinite(question.limit.step_s)) {
    text += fmt::format("\nlimit: {} between tokens", ms_text(question.limit.step_s));
  }
  if (std::isfinite(question.limit.first_token_s)) {
    text += fmt::format("\nlimit: {} to the first token, of 99 % of the requests",
                        ms_text(question.limit.first_token_s));
  }
  return text + "\ndevices\n" + devices_text(subject) + "assumed\n" +
         assumptions_text(question.assumptions);
}

std::string row_head() {
  return fmt::format("{:<57} {:>7} {:>6} {:>8} {:>9} {:>9} {:>8}  {:<9} {:>11}\n",
                     "placement",
                     "$/h",
                     "batch",
                     "tokens/s",
                     "TBT",
                     "bound",
                     "$/Mtoken",
                     "limit",
                     "idle m, a %");
}

std::string row(const Candidate& candidate) {
  const StepEstimate& step = candidate.step;
  return fmt::format(
      "{:<57} {:>7.2f} {:>6.0f} {:>8.0f} {:>9} {:>9} {:>8.3f}  {:<9} {:>4.0f}, {:>3.0f}\n",
      candidate.placement.to_string(),
      candidate.dollars_per_h,
      candidate.num_sequences,
      step.tokens_per_s,
      ms_text(step.step_s),
      ms_text(candidate.bound.step_s),
      candidate.dollars_per_mtoken,
      limit_name(step.limit),
      100 * std::max(0.0, 1 - step.model_busy),
      100 * std::max(0.0, 1 - step.attention_busy));
}

std::string placements_text(const Advice& advice) {
  const SearchResult& search = advice.search;
  std::vector<Candidate> best = search.offloaded;
  std::stable_sort(best.begin(), best.end(), [](const auto& a, const auto& b) {
    return a.fleet_dollars_per_mtoken < b.fleet_dollars_per_mtoken;
  });
  if (best.size() > kMaxRows) best.resize(kMaxRows);
  std::string text = row_head();
  for (const Candidate& candidate : best) text += row(candidate);
  text += "homogeneous\n";
  for (const Candidate& candidate : search.colocated) text += row(candidate);
  if (!advice.colocated_with_host.empty()) text += "homogeneous, 10 ms more of host in each step\n";
  for (const Candidate& candidate : advice.colocated_with_host) text += row(candidate);
  return text;
}

// Of the winners: what a profile has not measured it continues in proportion.
std::string extrapolation_text(const Advice& advice) {
  std::string text;
  for (const auto& [name, best] :
       {std::pair("offloaded", &advice.offloaded), std::pair("homogeneous", &advice.colocated)}) {
    if (!*best || !(*best)->is_extrapolated) continue;
    text += fmt::format(
        "WARNING: the best {} placement's steps of {:.0f} sequences lie beyond the profile, which "
        "is continued in proportion: measure larger batches or longer contexts\n",
        name,
        (*best)->step.num_tokens);
  }
  return text;
}

std::string copies_text(const Load& load, const Candidate& candidate) {
  if (load.requests_per_s <= 0) return {};
  const double copies = candidate.num_copies;
  const double dollars = copies * candidate.dollars_per_h;
  return fmt::format(
      "  {} x {}: ${:.2f}/h for this load, {:.0f} % full, ${:.3f} a million tokens\n",
      copies,
      candidate.placement.to_string(),
      dollars,
      100 * load.tokens_per_s() / (copies * candidate.step.tokens_per_s),
      1e6 * dollars / 3600 / load.tokens_per_s());
}

std::string gains_text(const Advice& advice, bool has_rate) {
  if (advice.gains.empty()) return "no comparison: only one kind of placement fits\n";
  const auto range = [&](double GainCase::* gain) {
    const auto [low, high] = std::minmax_element(
        advice.gains.begin(), advice.gains.end(), [&](const auto& a, const auto& b) {
          return a.*gain < b.*gain;
        });
    return fmt::format("{:.2f}x to {:.2f}x", (*low).*gain, (*high).*gain);
  };
  std::string text = fmt::format("tokens per dollar, best offloaded over best homogeneous: {}{}\n",
                                 range(&GainCase::when_full),
                                 has_rate ? " when full" : "");
  if (has_rate) {
    text += fmt::format("of the whole copies that this rate takes: {}\n  {:<56} {:>6} {:>7}\n",
                        range(&GainCase::gain),
                        "",
                        "full",
                        "copies");
  }
  for (const GainCase& each : advice.gains) {
    text += fmt::format("  {:<56} {:>5.2f}x", each.name, each.when_full);
    if (has_rate) text += fmt::format(" {:>6.2f}x", each.gain);
    text += std::min(each.gain, each.when_full) < 1 ? "  a loss\n" : "\n";
  }
  return text;
}

std::string contexts_text(const std::vector<ContextCase>& contexts) {
  std::string text = "the same search at other lengths of context\n";
  for (const ContextCase& each : contexts) {
    if (each.offloaded_mtoken_dollars == 0 && each.colocated_mtoken_dollars == 0) continue;
    text += fmt::format("  {:>6.0f} tokens: ", each.context);
    if (each.offloaded_mtoken_dollars == 0) {
      text += "no offloaded placement\n";
    } else if (each.colocated_mtoken_dollars == 0) {
      text += "no homogeneous placement\n";
    } else {
      text += fmt::format("{:.2f}x{}\n", each.gain(), each.gain() < 1 ? "  a loss" : "");
    }
  }
  return text;
}

std::string replay_text(const char* name,
                        const Candidate& candidate,
                        const simulate::ReplayResult& replay,
                        const LatencyLimit& limit) {
  const double dollars = 1e6 * candidate.dollars_per_h / (3600 * replay.tokens_per_s);
  std::string text = fmt::format(
      "  {}: {:.0f} tokens/s, batch {:.0f}, TBT {} p50, {} p90, {} p99; idle model {:.0f} %, "
      "attention "
      "{:.0f} %, both {:.0f} %;\n    {} preemptions, ${:.3f} a million tokens, {:.0f} s\n",
      name,
      replay.tokens_per_s,
      replay.mean_batch,
      ms_text(replay.tbt_s.p50),
      ms_text(replay.tbt_s.p90),
      ms_text(replay.tbt_s.p99),
      100 * replay.model_idle,
      100 * replay.attention_idle,
      100 * std::max(0.0, replay.idle),
      replay.num_preemptions,
      dollars,
      replay.duration_s);
  if (!keeps_first_token(limit, replay)) {
    text += fmt::format("    MISSES the limit of {} to the first token, as do the next best\n",
                        ms_text(limit.first_token_s));
  }
  if (replay.is_overloaded) {
    return text +
           "    OVERLOADED: the queue grows without end; what it gives is its most, and times "
           "to the first token mean nothing\n";
  }
  return text +
         fmt::format("    first token after {} p50, {} p90, {} p99 (without prefill elsewhere)\n",
                     ms_text(replay.ttft_s.p50),
                     ms_text(replay.ttft_s.p90),
                     ms_text(replay.ttft_s.p99));
}

}  // namespace

std::string ms_text(double seconds) {
  const double ms = 1e3 * seconds;
  return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

std::string advice_text(const ReportSubject& subject, const Advice& advice) {
  const Load& load = *subject.request->question.load;
  std::string text =
      head(subject) +
      fmt::format(
          "\nanswered in {1:.2f} s: {0} placements, {2} of them possible; the best of each "
          "number of devices, by cost of a token\n",
          advice.search.num_placements,
          subject.search_s,
          advice.search.num_feasible) +
      placements_text(advice) + "\n" + extrapolation_text(advice) +
      gains_text(advice, load.requests_per_s > 0) + contexts_text(advice.contexts);
  if (load.requests_per_s > 0) text += "copies that this load needs\n";
  if (advice.offloaded) text += copies_text(load, *advice.offloaded);
  if (advice.colocated) text += copies_text(load, *advice.colocated);
  const LatencyLimit& limit = subject.request->question.limit;
  if (advice.offloaded_replay || advice.colocated_replay) {
    text += "replayed through the scheduler, one copy of each at its part of the rate\n";
  }
  if (advice.offloaded_replay) {
    text += replay_text("offloaded", *advice.offloaded, *advice.offloaded_replay, limit);
  }
  if (advice.colocated_replay) {
    text += replay_text("homogeneous", *advice.colocated, *advice.colocated_replay, limit);
  }
  return text;
}

}  // namespace lamina::planner
