#include "planner/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "planner/catalogue/device_catalogue.h"
#include "planner/model_source.h"
#include "planner/report/advice_report.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class AdviceTest : public ::testing::Test {
 protected:
  AdviceRequest request(double requests_per_s = 0) {
    load_ = draw_load({.prompt = LengthDistribution::parse("1000"),
                       .generated = LengthDistribution::parse("50"),
                       .requests_per_s = requests_per_s,
                       .num_requests = 300,
                       .seed = 5});
    return {.question = {.model = &model_,
                         .load = &load_,
                         .devices = {catalogue_.priced("h100"), catalogue_.priced("h20")},
                         .assumptions = {},
                         .limit = {},
                         .measured = {}},
            .colocated_device = catalogue_.priced("h100"),
            .space = {.max_model_devices = 4, .max_attention_devices = 8},
            .wants_replay = true};
  }
  ReportSubject subject(const AdviceRequest& request) const {
    return {.request = &request,
            .devices = {catalogue_.entry("h100"), catalogue_.entry("h20")},
            .search_s = 0};
  }

  DeviceCatalogue catalogue_ = DeviceCatalogue::built_in();
  ModelWork model_ = read_model_work("llama3-70b");
  Load load_;
};

TEST_F(AdviceTest, AGainStandsBesideWhatItDependsOn) {
  const AdviceRequest asked = request();
  const Advice advice = advise(asked);
  ASSERT_TRUE(advice.offloaded && advice.colocated);
  ASSERT_GE(advice.gains.size(), 5U);
  EXPECT_NEAR(advice.gains[0].gain,
              advice.colocated->dollars_per_mtoken / advice.offloaded->dollars_per_mtoken,
              1e-12);
  EXPECT_GT(advice.gains[1].gain, advice.gains[0].gain);  // 10 ms of the baseline's host
  EXPECT_LT(advice.gains[3].gain, advice.gains[0].gain);  // half the network
  const std::string text = advice_text(subject(asked), advice);
  for (const GainCase& each : advice.gains) EXPECT_THAT(text, HasSubstr(each.name));
  EXPECT_THAT(text, HasSubstr("$11.06/h, 2025-04-10"));
  EXPECT_THAT(text, HasSubstr("homogeneous, 10 ms more of host in each step"));
  EXPECT_EQ(advice.colocated_with_host.size(), advice.search.colocated.size());
  EXPECT_GT(advice.colocated_with_host[0].step.step_s, advice.search.colocated[0].step.step_s);
}

TEST_F(AdviceTest, AKnownRateIsServedByTheCheapestFleet) {
  const AdviceRequest asked = request(/*requests_per_s=*/4);
  const Advice advice = advise(asked);
  // 200 tokens/s: nothing larger than what serves them is bought.
  for (const Candidate& candidate : advice.search.offloaded) {
    EXPECT_GE(candidate.num_copies * candidate.dollars_per_h,
              advice.offloaded->num_copies * advice.offloaded->dollars_per_h * (1 - 1e-9));
    EXPECT_GE(candidate.num_copies * candidate.step.tokens_per_s,
              load_.tokens_per_s() * (1 - 1e-9));
  }
  ASSERT_TRUE(advice.offloaded_replay);
  EXPECT_FALSE(advice.offloaded_replay->is_overloaded);
  EXPECT_EQ(advice.offloaded_replay->num_tokens, 300 * 50);
  // Whole copies hide what other assumptions change, full ones do not.
  EXPECT_EQ(advice.gains[5].gain, advice.gains[0].gain);
  EXPECT_LT(advice.gains[5].when_full, advice.gains[0].when_full);
  EXPECT_GT(advice.gains[1].when_full, advice.gains[0].when_full);
  EXPECT_THAT(advice_text(subject(asked), advice), HasSubstr(" % full, $"));
}

TEST_F(AdviceTest, WhatLiesBeyondAProfileIsMarked) {
  AdviceRequest asked = request();
  asked.question.covers = [](double num_sequences, double) { return num_sequences <= 100; };
  const Advice advice = advise(asked);
  EXPECT_TRUE(advice.offloaded->is_extrapolated);
  EXPECT_THAT(advice_text(subject(asked), advice),
              HasSubstr("WARNING: the best offloaded placement's steps of "));
  const auto json = nlohmann::json::parse(advice_json(subject(asked), advice));
  EXPECT_EQ(json["best_offloaded"]["beyond_profile"], true);
  asked.question.covers = nullptr;
  EXPECT_THAT(advice_text(subject(asked), advise(asked)), Not(HasSubstr("WARNING")));
}

TEST_F(AdviceTest, ALimitOnTheFirstTokenIsKeptOrSaidToBeMissed) {
  AdviceRequest asked = request(/*requests_per_s=*/4);
  asked.wants_replay = false;
  asked.question.limit.first_token_s = 10;
  const Advice kept = advise(asked);
  ASSERT_TRUE(kept.offloaded_replay);
  EXPECT_LE(kept.offloaded_replay->ttft_s.p99, 10);
  EXPECT_THAT(advice_text(subject(asked), kept), Not(HasSubstr("MISSES")));
  asked.question.limit.first_token_s = 1e-6;
  const Advice missed = advise(asked);
  EXPECT_EQ(missed.offloaded->placement.to_string(), kept.offloaded->placement.to_string());
  EXPECT_THAT(advice_text(subject(asked), missed), HasSubstr("MISSES the limit"));
}

TEST_F(AdviceTest, JsonSaysTheSame) {
  const AdviceRequest asked = request(4);
  const Advice advice = advise(asked);
  const auto json = nlohmann::json::parse(advice_json(subject(asked), advice));
  EXPECT_EQ(json["model"], "llama3-70b");
  EXPECT_DOUBLE_EQ(json["best_offloaded"]["dollars_per_h"], advice.offloaded->dollars_per_h);
  EXPECT_EQ(json["tokens_per_dollar_gain"].size(), advice.gains.size());
  EXPECT_EQ(json["offloaded"].size(), advice.search.offloaded.size());
  EXPECT_EQ(json["offloaded_replay"]["overloaded"], false);
  EXPECT_TRUE(json["offloaded_replay"].contains("ttft"));
  EXPECT_EQ(json["devices"][1]["price_date"], "2025-04-10");
}

TEST_F(AdviceTest, WhereNothingFitsThatIsSaid) {
  model_.weight_bytes = 1e15;
  EXPECT_THROW((void)advise(request()), Error);
}

}  // namespace
}  // namespace lamina::planner
