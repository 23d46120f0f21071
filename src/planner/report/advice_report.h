// What `lamina plan` prints: an Advice as text for a terminal, or as JSON. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "planner/advice.h"
#include "planner/catalogue/device_catalogue.h"

namespace lamina::planner {

// What was asked, for the head of a report.
struct ReportSubject {
  const AdviceRequest* request = nullptr;
  std::vector<CatalogueEntry> devices;  // those that take part
  double search_s = 0;                  // time that the answer took; not in JSON
};

std::string advice_text(const ReportSubject& subject, const Advice& advice);
// One object, with a line break at its end.
std::string advice_json(const ReportSubject& subject, const Advice& advice);

// Milliseconds with three significant digits.
std::string ms_text(double seconds);

}  // namespace lamina::planner
