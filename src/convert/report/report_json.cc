// ConversionReport for tools.
#include <nlohmann/json.hpp>

#include "convert/report/conversion_report.h"

namespace lamina {
namespace {

using Json = nlohmann::ordered_json;

Json work_json(const SliceWork& work) {
  return {{"operators", work.num_operators},
          {"flop_per_token", work.flop},
          {"weight_bytes_read_per_token", work.weight_bytes_read},
          {"weight_bytes", work.weight_bytes},
          {"sent_bytes_per_token", work.sent_bytes},
          {"received_bytes_per_token", work.received_bytes}};
}

Json carried_json(const std::vector<CarriedFigure>& figures) {
  Json list = Json::array();
  for (const CarriedFigure& figure : figures) {
    list.push_back({{"name", figure.name}, {"bytes_per_token", figure.bytes}});
  }
  return list;
}

Json slice_json(const SliceFigures& slice, const SlicedModel& model) {
  Json json = {{"idx", slice.idx}, {"count", slice.count}};
  json.update(work_json(slice.work));
  json["carried_in"] = carried_json(slice.carried_in);
  json["carried_out"] = carried_json(slice.carried_out);
  json["program"] = model.dump_slice(slice.idx);
  return json;
}

Json rewrites_json(const RewriteReport& rewrites) {
  Json list = Json::array();
  for (const RewriteReport::Entry& entry : rewrites.entries) {
    list.push_back(
        {{"name", entry.name}, {"applied", entry.num_applied}, {"disabled", entry.disabled}});
  }
  return list;
}

Json projections_json(const RewriteReport& rewrites) {
  Json list = Json::array();
  for (const ProjectionDecision& decision : rewrites.projections) {
    list.push_back({{"attentions", decision.num_attentions},
                    {"in_width", decision.shape.in_width},
                    {"q_width", decision.shape.q_width},
                    {"kv_width", decision.shape.kv_width},
                    {"fused", decision.estimate.fuses()},
                    {"fused_us", decision.estimate.fused_us},
                    {"q_first_us", decision.estimate.split_us}});
  }
  return list;
}

}  // namespace

std::string report_json(const ConversionReport& report,
                        const SlicedModel& model,
                        const std::optional<ActivationMemory>& memory) {
  Json json = {{"slices", Json::array()}, {"total", work_json(report.total)}};
  for (const SliceFigures& slice : report.slices) {
    json["slices"].push_back(slice_json(slice, model));
  }
  json["rewrites"] = rewrites_json(report.rewrites);
  json["projections"] = projections_json(report.rewrites);
  if (memory) {
    json["activations"] = {{"max_tokens", memory->max_tokens},
                           {"scratch_bytes", memory->scratch_bytes},
                           {"carried_bytes", memory->carried_bytes}};
  }
  return json.dump(2) + "\n";
}

}  // namespace lamina
