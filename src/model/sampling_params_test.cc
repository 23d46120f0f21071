#include "model/sampling_params.h"

#include <gmock/gmock.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace lamina {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 100;

TEST(SamplingParams, AcceptsDefaultsAndEdges) {
  EXPECT_TRUE(SamplingParams{}.validate(kVocab).ok());
  SamplingParams params;
  params.temperature = 0.0F;
  params.top_k = -1;
  params.min_p = 1.0F;
  params.presence_penalty = -2.0F;
  params.frequency_penalty = 2.0F;
  params.logit_bias = {{0, -100.0F}, {99, 100.0F}};
  params.forbidden_ids = {99};
  params.num_logprobs = 0;
  EXPECT_TRUE(params.validate(kVocab).ok());
}

TEST(SamplingParams, NamesTheParameterThatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  struct Case {
    std::string name;
    std::function<void(SamplingParams&)> spoil;
  };
  const std::vector<Case> cases = {
      {"temperature", [](auto& p) { p.temperature = -0.1F; }},
      {"temperature", [&](auto& p) { p.temperature = nan; }},
      {"temperature", [&](auto& p) { p.temperature = infinity; }},
      {"top_p", [](auto& p) { p.top_p = 0.0F; }},
      {"top_p", [](auto& p) { p.top_p = 1.1F; }},
      {"top_p", [&](auto& p) { p.top_p = nan; }},
      {"top_k", [](auto& p) { p.top_k = -2; }},
      {"min_p", [](auto& p) { p.min_p = -0.1F; }},
      {"min_p", [](auto& p) { p.min_p = 1.1F; }},
      {"presence_penalty", [](auto& p) { p.presence_penalty = 2.1F; }},
      {"frequency_penalty", [](auto& p) { p.frequency_penalty = -2.1F; }},
      {"repetition_penalty", [](auto& p) { p.repetition_penalty = 0.0F; }},
      {"repetition_penalty", [&](auto& p) { p.repetition_penalty = infinity; }},
      {"logit_bias", [](auto& p) { p.logit_bias = {{kVocab, 0.0F}}; }},
      {"logit_bias", [](auto& p) { p.logit_bias = {{-1, 0.0F}}; }},
      {"logit_bias", [](auto& p) { p.logit_bias = {{1, 101.0F}}; }},
      {"forbidden_ids", [](auto& p) { p.forbidden_ids = {kVocab}; }},
      {"num_logprobs", [](auto& p) { p.num_logprobs = -2; }},
      {"num_logprobs", [](auto& p) { p.num_logprobs = kVocab + 1; }},
  };
  for (const Case& bad : cases) {
    SamplingParams params;
    bad.spoil(params);
    const Status status = params.validate(kVocab);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad.name;
    EXPECT_THAT(status.message(), HasSubstr(bad.name));
  }
}

}  // namespace
}  // namespace lamina
