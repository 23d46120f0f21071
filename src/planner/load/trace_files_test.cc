#include "planner/load/trace_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/paths.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;

template <typename Parse>
std::string message_of(const Parse& parse, const std::string& text) {
  try {
    (void)parse(text, "t");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

constexpr const char* kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";

TEST(TraceFiles, AnAzureTraceGivesTimesAndLengths) {
  const Load load = parse_azure_trace(std::string(kHeader) +
                                          "2023-11-16 23:59:59.5000000,374,44\r\n"
                                          "2023-11-17 00:00:01.2500000,396,109",
                                      "a/conv.csv");
  EXPECT_EQ(load.name, "conv");
  ASSERT_EQ(load.requests.size(), 2U);
  EXPECT_DOUBLE_EQ(load.requests[0].arrives_s, 0.0);
  EXPECT_NEAR(load.requests[1].arrives_s, 1.75, 1e-6);
  EXPECT_EQ(load.requests[1].num_prompt_tokens, 396);
  EXPECT_EQ(load.requests[1].num_generated_tokens, 109);
  EXPECT_DOUBLE_EQ(load.mean_prompt, 385);
  EXPECT_DOUBLE_EQ(load.mean_generated, 76.5);
  EXPECT_DOUBLE_EQ(load.longest, 505);
  // Steps of the second sequence count 109 times, those of the first 44 times.
  EXPECT_DOUBLE_EQ(load.context, (44 * (374 + 22.0) + 109 * (396 + 54.5)) / 153);
  EXPECT_NEAR(load.requests_per_s, 1 / 1.75, 1e-6);
}

TEST(TraceFiles, ARequestThatGeneratesNothingIsLeftOut) {
  const Load load = parse_azure_trace(
      std::string(kHeader) + "2023-11-16 00:00:00,1,0\n2023-11-16 00:00:01,2,3\n", "t");
  ASSERT_EQ(load.requests.size(), 1U);
  EXPECT_EQ(load.requests[0].num_prompt_tokens, 2);
}

TEST(TraceFiles, WrongLinesOfAnAzureTraceAreNamed) {
  const auto message = [](const std::string& lines) {
    return message_of(parse_azure_trace, kHeader + lines);
  };
  EXPECT_THAT(message_of(parse_azure_trace, "a,b,c\n"), HasSubstr("t:1: an Azure trace begins"));
  EXPECT_THAT(message_of(parse_azure_trace, ""), HasSubstr("begins with"));
  EXPECT_THAT(message(""), HasSubstr("no requests"));
  EXPECT_THAT(message("2023-11-16 18:15:46,3\n"), HasSubstr("t:2: three values"));
  EXPECT_THAT(message("yesterday,3,4\n"), HasSubstr("no time"));
  EXPECT_THAT(message("2023-02-30 18:15:46,3,4\n"), HasSubstr("no time"));
  EXPECT_THAT(message("2023-11-16 18:15:46.x,3,4\n"), HasSubstr("no time"));
  EXPECT_THAT(message("2023-11-16 18:15:46,3,4,5\n"), HasSubstr("whole numbers"));
  EXPECT_THAT(message("2023-11-16 18:15:46,-3,4\n"), HasSubstr("-3 prompt"));
  EXPECT_THAT(message("2023-11-16 18:15:46,3,99999999999\n"), HasSubstr("99999999999 generated"));
  EXPECT_THAT(message("2023-11-16 18:15:46,3,4\n2023-11-16 18:15:45,3,4\n"),
              HasSubstr("t:3: requests are not in order"));
}

TEST(TraceFiles, AMooncakeTraceGivesTimesAndLengths) {
  const Load load = parse_mooncake_trace(
      R"({"timestamp": 1000, "input_length": 10, "output_length": 4, "hash_ids": [0, 1]})"
      "\n"
      R"({"timestamp": 3500, "input_length": 20, "output_length": 2, "hash_ids": []})",
      "t");
  ASSERT_EQ(load.requests.size(), 2U);
  EXPECT_DOUBLE_EQ(load.requests[1].arrives_s, 2.5);
  EXPECT_EQ(load.requests[1].num_prompt_tokens, 20);
  EXPECT_DOUBLE_EQ(load.mean_generated, 3);
}

TEST(TraceFiles, WrongLinesOfAMooncakeTraceAreNamed) {
  EXPECT_THAT(message_of(parse_mooncake_trace, "nonsense\n"), HasSubstr("t:1"));
  EXPECT_THAT(message_of(parse_mooncake_trace, "[1]\n"), HasSubstr("t:1"));
  EXPECT_THAT(message_of(parse_mooncake_trace, R"({"input_length": 1, "output_length": 1})"),
              HasSubstr("'timestamp' is missing"));
  EXPECT_THAT(message_of(parse_mooncake_trace,
                         R"({"timestamp": 1, "input_length": 1.5, "output_length": 1})"),
              HasSubstr("input_length"));
  EXPECT_THAT(message_of(parse_mooncake_trace, std::string(100000, '[')), HasSubstr("t:1"));
}

TEST(TraceFiles, AnotherRateStretchesTheGaps) {
  const Load load = with_rate(
      parse_mooncake_trace(R"({"timestamp": 0, "input_length": 1, "output_length": 1})"
                           "\n"
                           R"({"timestamp": 1000, "input_length": 1, "output_length": 1})",
                           "t"),
      4.0);
  EXPECT_DOUBLE_EQ(load.requests[1].arrives_s, 0.25);
  EXPECT_DOUBLE_EQ(with_rate(load, 0).requests[1].arrives_s, 0);
}

TEST(TraceFiles, RecordedTracesHaveThePapersMeans) {
  LAMINA_SKIP_WITHOUT_SHARED("data/traces");
  const Load conv =
      read_trace(test::shared_path("data/traces/azure_llm_2023/AzureLLMInferenceTrace_conv.csv"));
  EXPECT_EQ(conv.requests.size(), 19366U);
  EXPECT_NEAR(conv.mean_prompt, 1154.7, 0.05);
  EXPECT_NEAR(conv.mean_generated, 211.1, 0.05);
  const Load kimi =
      read_trace(test::shared_path("data/traces/mooncake_fast25/conversation_trace.jsonl"));
  EXPECT_EQ(kimi.requests.size(), 12031U);
  EXPECT_NEAR(kimi.mean_prompt, 12035.1, 0.05);
  EXPECT_NEAR(kimi.mean_generated, 342.6, 0.05);
}

TEST(TraceFiles, TheEndingTellsTheForm) {
  EXPECT_THROW((void)read_trace("/nowhere/trace.csv"), Error);
}

}  // namespace
}  // namespace lamina::planner
