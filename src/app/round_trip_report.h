// What `lamina bench transport` prints: a row for each backend and size, as an aligned table while
// rows come, or as JSON once all are there. Knows no transport.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "transport/measure/trip_times.h"

namespace lamina::app {

// What rows are about, but for the size.
struct RoundTripSubject {
  std::string backend;
  std::string between;
  std::string by;  // how messages travel
};

struct RoundTripRow {
  RoundTripSubject subject;
  uint32_t size_bytes = 0;
  measure::TripSummary summary;
  std::string missing;  // why there is nothing to measure on this machine
  std::string error;    // or why it was not measured
};

// Lines of the table, each with its end.
std::string table_head();
std::string table_line(const RoundTripRow& row);
// {"round_trips": [...], "missing": [...], "errors": [...]}
std::string round_trips_json(const std::vector<RoundTripRow>& rows);

}  // namespace lamina::app
