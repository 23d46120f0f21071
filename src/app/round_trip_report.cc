#include "app/round_trip_report.h"

#include <fmt/format.h>

#include <cmath>

#include <nlohmann/json.hpp>

namespace lamina::app {
namespace {

using Json = nlohmann::ordered_json;

// "8 B", "16 KiB", "4 MiB"; bytes where it is no whole number of those.
std::string size_text(uint32_t size_bytes) {
  if (size_bytes % (1 << 20) == 0) return fmt::format("{} MiB", size_bytes >> 20);
  if (size_bytes % (1 << 10) == 0) return fmt::format("{} KiB", size_bytes >> 10);
  return fmt::format("{} B", size_bytes);
}

std::string subject_columns(const RoundTripSubject& subject) {
  return fmt::format("{:<9} {:<13} {:<21}", subject.backend, subject.between, subject.by);
}

Json subject_json(const RoundTripSubject& subject) {
  return {{"backend", subject.backend}, {"between", subject.between}, {"by", subject.by}};
}

// To thousandths: more is noise.
double rounded(double value) {
  return std::round(value * 1e3) / 1e3;
}

Json trips_json(const RoundTripRow& row) {
  Json json = subject_json(row.subject);
  json["size_bytes"] = row.size_bytes;
  json["p50_us"] = rounded(row.summary.p50_us);
  json["p99_us"] = rounded(row.summary.p99_us);
  json["gb_per_s"] = rounded(row.summary.gb_per_s);
  json["num_times"] = row.summary.num_times;
  return json;
}

}  // namespace

std::string table_head() {
  return subject_columns({"backend", "between", "by"}) +
         fmt::format(" {:>9} {:>10} {:>10} {:>8}\n", "size", "p50 us", "p99 us", "GB/s");
}

std::string table_line(const RoundTripRow& row) {
  const std::string columns = subject_columns(row.subject);
  if (!row.missing.empty()) return columns + " not measured: " + row.missing + "\n";
  if (!row.error.empty()) return columns + " error: " + row.error + "\n";
  return columns + fmt::format(" {:>9} {:>10.2f} {:>10.2f} {:>8.3f}\n",
                               size_text(row.size_bytes),
                               row.summary.p50_us,
                               row.summary.p99_us,
                               row.summary.gb_per_s);
}

std::string round_trips_json(const std::vector<RoundTripRow>& rows) {
  Json json = {
      {"round_trips", Json::array()}, {"missing", Json::array()}, {"errors", Json::array()}};
  for (const RoundTripRow& row : rows) {
    Json subject = subject_json(row.subject);
    if (!row.missing.empty()) {
      subject["reason"] = row.missing;
      json["missing"].push_back(subject);
    } else if (!row.error.empty()) {
      subject["message"] = row.error;
      json["errors"].push_back(subject);
    } else {
      json["round_trips"].push_back(trips_json(row));
    }
  }
  return json.dump(2) + "\n";
}

}  // namespace lamina::app
