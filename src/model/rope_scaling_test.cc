#include "model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#include "base/error.h"
#include "support/paths.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

struct GoldenCase {
  std::string name;
  std::map<std::string, std::string> settings;
  double magnitude = 0.0;
  std::vector<double> inv_freq;

  [[nodiscard]] double number(const std::string& key, double otherwise) const {
    const auto found = settings.find(key);
    return found == settings.end() ? otherwise : std::stod(found->second);
  }
  [[nodiscard]] std::optional<double> optional_number(const std::string& key) const {
    if (!settings.contains(key)) return std::nullopt;
    return number(key, 0.0);
  }
};

// The format is described in tests/golden/rope_frequencies.py, which writes the file.
std::vector<GoldenCase> golden_cases() {
  std::ifstream file(test::fixture_path("golden/rope/frequencies.txt"));
  std::vector<GoldenCase> cases;
  std::string line;
  while (std::getline(file, line)) {
    GoldenCase golden;
    std::istringstream head(line);
    head >> golden.name;
    for (std::string setting; head >> setting;) {
      const size_t equals = setting.find('=');
      golden.settings[setting.substr(0, equals)] = setting.substr(equals + 1);
    }
    std::getline(file, line);
    golden.magnitude = std::stod(line);
    std::getline(file, line);
    std::istringstream numbers(line);
    for (double value = 0.0; numbers >> value;) golden.inv_freq.push_back(value);
    cases.push_back(std::move(golden));
  }
  return cases;
}

RopeConfig config_of(const GoldenCase& golden) {
  static const std::map<std::string, RopeType> kTypes = {{"default", RopeType::kDefault},
                                                         {"linear", RopeType::kLinear},
                                                         {"dynamic", RopeType::kDynamic},
                                                         {"yarn", RopeType::kYarn},
                                                         {"llama3", RopeType::kLlama3}};
  RopeConfig rope;
  rope.type = kTypes.at(golden.settings.at("type"));
  rope.theta = golden.number("theta", rope.theta);
  rope.factor = golden.number("factor", rope.factor);
  rope.low_freq_factor = golden.number("low", rope.low_freq_factor);
  rope.high_freq_factor = golden.number("high", rope.high_freq_factor);
  rope.original_max_position_embeddings = static_cast<int32_t>(golden.number("original", 0.0));
  rope.beta_fast = golden.number("beta_fast", rope.beta_fast);
  rope.beta_slow = golden.number("beta_slow", rope.beta_slow);
  rope.attention_factor = golden.optional_number("attention_factor");
  rope.mscale = golden.optional_number("mscale");
  rope.mscale_all_dim = golden.optional_number("mscale_all_dim");
  rope.truncate = golden.number("truncate", 1.0) != 0.0;
  rope.partial_rotary_factor = golden.number("partial", 1.0);
  return rope;
}

TEST(RopeScalingTest, EqualsThePublishedFormulas) {
  const std::vector<GoldenCase> cases = golden_cases();
  ASSERT_EQ(cases.size(), 12U);
  for (const GoldenCase& golden : cases) {
    SCOPED_TRACE(golden.name);
    const RopeTableAttrs attrs =
        rope_frequencies(config_of(golden),
                         static_cast<int32_t>(golden.number("head_dim", 0.0)),
                         static_cast<int32_t>(golden.number("max_position", 0.0)));
    EXPECT_NEAR(attrs.magnitude, golden.magnitude, 1e-6);
    ASSERT_EQ(attrs.inv_freq.size(), golden.inv_freq.size());
    for (size_t i = 0; i < golden.inv_freq.size(); ++i) {
      // f32 has 24 bits: half a unit in the last place is 6e-8.
      EXPECT_NEAR(attrs.inv_freq[i] / golden.inv_freq[i], 1.0, 1e-7) << "pair " << i;
    }
  }
}

RopeConfig rope_of(RopeType type, double factor) {
  RopeConfig rope;
  rope.type = type;
  rope.factor = factor;
  return rope;
}

TEST(RopeScalingTest, OriginalLengthDefaultsToTheModelsLength) {
  RopeConfig rope = rope_of(RopeType::kLlama3, 8.0);
  const RopeTableAttrs implied = rope_frequencies(rope, 64, 256);
  EXPECT_NE(rope_frequencies(rope, 64, 4096).inv_freq, implied.inv_freq);
  rope.original_max_position_embeddings = 256;
  EXPECT_EQ(rope_frequencies(rope, 64, 4096).inv_freq, implied.inv_freq);
}

TEST(RopeScalingTest, AbsentOrZeroMscaleMeansThePlainMagnitude) {
  RopeConfig rope = rope_of(RopeType::kYarn, 4.0);
  const float plain = rope_frequencies(rope, 64, 1024).magnitude;
  EXPECT_GT(plain, 1.1F);
  rope.mscale = 0.7;
  EXPECT_EQ(rope_frequencies(rope, 64, 1024).magnitude, plain);
  rope.mscale_all_dim = 0.0;
  EXPECT_EQ(rope_frequencies(rope, 64, 1024).magnitude, plain);
  rope.mscale_all_dim = 0.7;
  EXPECT_EQ(rope_frequencies(rope, 64, 1024).magnitude, 1.0F);
  EXPECT_EQ(rope_frequencies(rope_of(RopeType::kYarn, 0.5), 64, 1024).magnitude, 1.0F);
}

TEST(RopeScalingTest, ExactPositionsEndWhereTheFormulaDoes) {
  ModelConfig config;
  config.max_position_embeddings = 4096;
  EXPECT_EQ(max_exact_positions(config), 4096);
  config.rope = rope_of(RopeType::kDynamic, 2.0);
  EXPECT_EQ(max_exact_positions(config), 4096);
  config.rope.original_max_position_embeddings = 2048;
  EXPECT_EQ(max_exact_positions(config), 2048);
  config.rope.type = RopeType::kLlama3;
  EXPECT_EQ(max_exact_positions(config), 4096);
  config.rope = rope_of(RopeType::kYarn, 4.0);
  config.rope.original_max_position_embeddings = 4096;
  EXPECT_EQ(max_exact_positions(config), 16384);
  config.max_position_embeddings = 20000;
  EXPECT_EQ(max_exact_positions(config), 20000);
  config.rope.factor = 1e12;
  EXPECT_EQ(max_exact_positions(config), 2147483647);
}

void expect_refused(RopeType type,
                    const std::function<void(RopeConfig&)>& spoil,
                    const std::string& text) {
  RopeConfig rope = rope_of(type, 2.0);
  spoil(rope);
  try {
    static_cast<void>(rope_frequencies(rope, 64, 1024));
    ADD_FAILURE() << "accepted; expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(RopeScalingTest, RefusesFieldsWithoutMeaning) {
  using enum RopeType;
  using Rope = RopeConfig;
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  expect_refused(kDefault, [](Rope& rope) { rope.theta = 0.0; }, "rope_theta is 0");
  expect_refused(
      kDefault, [](Rope& rope) { rope.partial_rotary_factor = 0.0; }, "partial_rotary_factor is 0");
  expect_refused(
      kDefault, [](Rope& rope) { rope.partial_rotary_factor = 1.5; }, "must be in (0, 1]");
  expect_refused(
      kDefault,
      [](Rope& rope) { rope.partial_rotary_factor = 0.12; },
      "rotary width is 7; it must be even");
  expect_refused(kLinear, [](Rope& rope) { rope.factor = 0.0; }, "factor is 0");
  expect_refused(kYarn, [&](Rope& rope) { rope.factor = nan; }, "factor is nan");
  expect_refused(kLlama3, [](Rope& rope) { rope.low_freq_factor = 0.0; }, "low_freq_factor is 0");
  expect_refused(
      kLlama3,
      [](Rope& rope) { rope.low_freq_factor = 4.0; },
      "high_freq_factor is 4; it must be above low_freq_factor");
  expect_refused(kYarn, [](Rope& rope) { rope.beta_slow = 0.0; }, "beta_slow is 0");
  expect_refused(
      kYarn, [](Rope& rope) { rope.beta_fast = 1.0; }, "beta_fast is 1; it must be above");
  EXPECT_THROW(static_cast<void>(rope_frequencies(rope_of(kYarn, 2.0), 64, 0)), Error);
}

}  // namespace
}  // namespace lamina
