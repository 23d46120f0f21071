#include "app/round_trip_report.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <nlohmann/json.hpp>

namespace lamina::app {
namespace {

const RoundTripSubject kShm = {"shm", "processes", "put"};
const RoundTripRow kMeasured = {
    .subject = kShm,
    .size_bytes = 16 << 10,
    .summary = {.p50_us = 7.374, .p99_us = 12.5, .gb_per_s = 7.71, .num_times = 1000}};
const RoundTripRow kMissing = {.subject = {"nccl", "GPU and GPU", "graph"}, .missing = "no GPU"};
const RoundTripRow kFailed = {.subject = kShm, .error = "the other process has left"};

TEST(RoundTripReport, TheTableIsAligned) {
  const std::string head = table_head();
  const std::string line = table_line(kMeasured);
  EXPECT_EQ(head.size(), line.size());
  EXPECT_EQ(line,
            "shm       processes     put                      16 KiB       7.37      12.50    "
            "7.710\n");
  EXPECT_EQ(head.find("p50 us") + 6, line.find("7.37") + 4);
}

TEST(RoundTripReport, SaysWhyThereIsNoTime) {
  EXPECT_NE(table_line(kMissing).find(" not measured: no GPU\n"), std::string::npos);
  EXPECT_NE(table_line(kFailed).find(" error: the other process has left\n"), std::string::npos);
}

TEST(RoundTripReport, JsonSaysTheSame) {
  const auto json = nlohmann::json::parse(round_trips_json({kMeasured, kMissing, kFailed}));
  ASSERT_EQ(json["round_trips"].size(), 1U);
  EXPECT_EQ(json["round_trips"][0]["backend"], "shm");
  EXPECT_EQ(json["round_trips"][0]["size_bytes"], 16384);
  EXPECT_EQ(json["round_trips"][0]["p50_us"], 7.374);
  EXPECT_NE(round_trips_json({kMeasured}).find("7.374,"), std::string::npos);
  EXPECT_EQ(json["missing"][0]["reason"], "no GPU");
  EXPECT_EQ(json["errors"][0]["message"], "the other process has left");
}

}  // namespace
}  // namespace lamina::app
