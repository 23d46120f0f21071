// ConversionReport for people.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "convert/report/conversion_report.h"

namespace lamina {
namespace {

constexpr size_t kNumColumns = 8;
using Row = std::array<std::string, kNumColumns>;

// "1.712 G" with three decimals; small numbers as they are.
std::string with_prefix(int64_t number) {
  constexpr std::array<std::string_view, 5> kPrefixes = {"", "k", "M", "G", "T"};
  auto value = static_cast<double>(number);
  size_t prefix = 0;
  for (; value >= 1000.0 && prefix + 1 < kPrefixes.size(); ++prefix) value /= 1000.0;
  return prefix == 0 ? fmt::format("{} ", number)
                     : fmt::format("{:.3f} {}", value, kPrefixes[prefix]);
}

int64_t sum_bytes(const std::vector<CarriedFigure>& figures) {
  int64_t bytes = 0;
  for (const CarriedFigure& figure : figures) bytes += figure.bytes;
  return bytes;
}

Row row_of(std::string label, const SliceWork& work, std::string carried) {
  return {std::move(label),
          fmt::format("{}", work.num_operators),
          with_prefix(work.flop),
          with_prefix(work.weight_bytes_read) + "B",
          with_prefix(work.weight_bytes) + "B",
          std::move(carried),
          fmt::format("{}", work.sent_bytes),
          fmt::format("{}", work.received_bytes)};
}

// The first column to the left, the others to the right.
std::string table(const std::vector<Row>& rows) {
  std::array<size_t, kNumColumns> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < kNumColumns; ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    text += fmt::format("{:<{}}", row[0], widths[0]);
    for (size_t i = 1; i < kNumColumns; ++i) text += fmt::format("  {:>{}}", row[i], widths[i]);
    text += '\n';
  }
  return text;
}

std::string slice_table(const ConversionReport& report) {
  std::vector<Row> rows = {{"slice",
                            "operators",
                            "FLOP",
                            "weights read",
                            "weights",
                            "bytes carried",
                            "bytes sent",
                            "bytes received"}};
  for (const SliceFigures& slice : report.slices) {
    rows.push_back(
        row_of(slice.label, slice.work, fmt::format("{}", sum_bytes(slice.carried_out))));
  }
  rows.push_back(row_of("all", report.total, ""));
  return "Per token:\n" + table(rows);
}

std::string carried_lines(const ConversionReport& report) {
  std::string text;
  for (const SliceFigures& slice : report.slices) {
    for (const CarriedFigure& value : slice.carried_out) {
      text += fmt::format("slice {} carries {}: {} bytes\n", slice.label, value.name, value.bytes);
    }
  }
  return text;
}

std::string rewrite_lines(const RewriteReport& rewrites) {
  std::string text;
  for (const RewriteReport::Entry& entry : rewrites.entries) {
    text += fmt::format("rewrite {}: {}\n",
                        entry.name,
                        entry.disabled ? "disabled" : fmt::format("{} times", entry.num_applied));
  }
  for (const ProjectionDecision& decision : rewrites.projections) {
    const ProjectionShape& shape = decision.shape;
    text += fmt::format(
        "q, k, v of {} attentions ({} -> {} + {}): {}; attention is complete after "
        "{:.2f} us fused, {:.2f} us with q first\n",
        decision.num_attentions,
        shape.in_width,
        shape.q_width,
        shape.kv_width,
        decision.estimate.fuses() ? "fused" : "q first",
        decision.estimate.fused_us,
        decision.estimate.split_us);
  }
  return text;
}

}  // namespace

std::string report_text(const ConversionReport& report,
                        const SlicedModel& model,
                        const std::optional<ActivationMemory>& memory) {
  const int64_t wire_bytes = report.total.sent_bytes + report.total.received_bytes;
  std::string text = slice_table(report) + "\n" + carried_lines(report);
  text +=
      fmt::format("wire: {} bytes a token, both ways ({}B)\n", wire_bytes, with_prefix(wire_bytes));
  if (memory) {
    text += fmt::format(
        "activations at {} tokens: {}B at most, {}B of it carried\n",
        memory->max_tokens,
        with_prefix(static_cast<int64_t>(memory->scratch_bytes + memory->carried_bytes)),
        with_prefix(static_cast<int64_t>(memory->carried_bytes)));
  }
  text += "\n" + rewrite_lines(report.rewrites);
  for (const SliceFigures& slice : report.slices) {
    text += "\n";
    if (slice.count > 1) text += fmt::format("slices {}, of which the first:\n", slice.label);
    text += model.dump_slice(slice.idx);
  }
  return text;
}

}  // namespace lamina
