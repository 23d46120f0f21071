#include <cmath>

#include <nlohmann/json.hpp>

#include "planner/report/advice_report.h"

namespace lamina::planner {
namespace {

using Json = nlohmann::ordered_json;

Json step_json(const StepEstimate& step) {
  return {{"sequences_of_a_micro_batch", step.num_tokens},
          {"model_s", step.model_s},
          {"attention_s", step.attention_s},
          {"wire_s", step.wire_s},
          {"step_s", step.step_s},
          {"tokens_per_s", step.tokens_per_s},
          {"model_idle", 1 - step.model_busy},
          {"attention_idle", 1 - step.attention_busy},
          {"network_busy", step.network_busy},
          {"limit", limit_name(step.limit)}};
}

Json placement_json(const PlacementSpec& placement) {
  return {{"replicas", placement.num_replicas},
          {"tensor_parallel", placement.tensor_parallel},
          {"attention_workers", placement.num_attention_workers},
          {"micro_batches", placement.num_micro_batches},
          {"partition", partition_name(placement.partition)},
          {"overlap", placement.overlap},
          {"kv_dtype", dtype_name(placement.kv_dtype)}};
}

Json candidate_json(const Candidate& candidate) {
  return {{"placement", placement_json(candidate.placement)},
          {"dollars_per_h", candidate.dollars_per_h},
          {"kv_blocks", candidate.num_blocks},
          {"most_sequences", candidate.most_sequences},
          {"sequences", candidate.num_sequences},
          {"dollars_per_mtoken", candidate.dollars_per_mtoken},
          {"copies", candidate.num_copies},
          {"copies_dollars_per_mtoken", candidate.fleet_dollars_per_mtoken},
          {"beyond_profile", candidate.is_extrapolated},
          {"step", step_json(candidate.step)},
          {"bound", step_json(candidate.bound)}};
}

Json candidates_json(const std::vector<Candidate>& candidates) {
  Json list = Json::array();
  for (const Candidate& candidate : candidates) list.push_back(candidate_json(candidate));
  return list;
}

Json percentiles_json(const simulate::Percentiles& p) {
  return {{"mean_s", p.mean}, {"p50_s", p.p50}, {"p90_s", p.p90}, {"p99_s", p.p99}};
}

Json replay_json(const simulate::ReplayResult& replay, double dollars_per_h) {
  Json json = {{"requests", replay.num_requests},
               {"tokens", replay.num_tokens},
               {"steps", replay.num_steps},
               {"preemptions", replay.num_preemptions},
               {"duration_s", replay.duration_s},
               {"tokens_per_s", replay.tokens_per_s},
               {"dollars_per_mtoken", 1e6 * dollars_per_h / (3600 * replay.tokens_per_s)},
               {"mean_batch", replay.mean_batch},
               {"peak_blocks", replay.peak_blocks},
               {"tbt", percentiles_json(replay.tbt_s)},
               {"model_idle", replay.model_idle},
               {"attention_idle", replay.attention_idle},
               {"idle", replay.idle},
               {"overloaded", replay.is_overloaded}};
  if (!replay.is_overloaded) json["ttft"] = percentiles_json(replay.ttft_s);
  return json;
}

Json device_json(const CatalogueEntry& entry) {
  const DeviceSpec& spec = entry.spec;
  return {{"name", spec.name},
          {"flop_per_s", spec.flop_per_s},
          {"memory_bytes", spec.memory_bytes},
          {"memory_bytes_per_s", spec.memory_bytes_per_s},
          {"link_bytes_per_s", spec.link_bytes_per_s},
          {"network_bytes_per_s", spec.network_bytes_per_s},
          {"source", entry.source},
          {"dollars_per_h", spec.dollars_per_h},
          {"price_date", entry.price->date},
          {"price_source", entry.price->source}};
}

Json assumptions_json(const Assumptions& a) {
  return {{"flop_efficiency", a.flop_efficiency},
          {"weight_efficiency", a.weight_efficiency},
          {"kv_efficiency", a.kv_efficiency},
          {"network_efficiency", a.network_efficiency},
          {"round_trip_s", a.round_trip_s},
          {"all_reduce_s", a.all_reduce_s},
          {"counts_reduced_bytes", a.counts_reduced_bytes},
          {"colocated_host_s", a.colocated_host_s},
          {"memory_utilization", a.memory_utilization},
          {"reserved_bytes", a.reserved_bytes},
          {"block_size", a.block_size}};
}

Json subject_json(const ReportSubject& subject) {
  const Question& question = subject.request->question;
  Json json = {{"model", question.model->name},
               {"load",
                {{"name", question.load->name},
                 {"mean_prompt", question.load->mean_prompt},
                 {"mean_generated", question.load->mean_generated},
                 {"context", question.load->context},
                 {"requests_per_s", question.load->requests_per_s}}},
               {"devices", Json::array()},
               {"assumptions", assumptions_json(question.assumptions)}};
  for (const CatalogueEntry& entry : subject.devices) json["devices"].push_back(device_json(entry));
  if (std::isfinite(question.limit.step_s)) json["max_step_s"] = question.limit.step_s;
  if (std::isfinite(question.limit.first_token_s)) {
    json["max_first_token_s"] = question.limit.first_token_s;
  }
  return json;
}

}  // namespace

std::string advice_json(const ReportSubject& subject, const Advice& advice) {
  Json json = subject_json(subject);
  json["placements_tried"] = advice.search.num_placements;
  if (advice.offloaded) json["best_offloaded"] = candidate_json(*advice.offloaded);
  if (advice.colocated) json["best_homogeneous"] = candidate_json(*advice.colocated);
  json["tokens_per_dollar_gain"] = Json::array();
  for (const GainCase& each : advice.gains) {
    json["tokens_per_dollar_gain"].push_back(
        {{"case", each.name}, {"gain", each.gain}, {"gain_when_full", each.when_full}});
  }
  json["contexts"] = Json::array();
  for (const ContextCase& each : advice.contexts) {
    json["contexts"].push_back({{"context", each.context},
                                {"offloaded_dollars_per_mtoken", each.offloaded_mtoken_dollars},
                                {"homogeneous_dollars_per_mtoken", each.colocated_mtoken_dollars}});
  }
  json["offloaded"] = candidates_json(advice.search.offloaded);
  json["homogeneous"] = candidates_json(advice.search.colocated);
  json["homogeneous_with_10_ms_of_host"] = candidates_json(advice.colocated_with_host);
  if (advice.offloaded_replay) {
    json["offloaded_replay"] =
        replay_json(*advice.offloaded_replay, advice.offloaded->dollars_per_h);
  }
  if (advice.colocated_replay) {
    json["homogeneous_replay"] =
        replay_json(*advice.colocated_replay, advice.colocated->dollars_per_h);
  }
  return json.dump(2) + "\n";
}

}  // namespace lamina::planner
