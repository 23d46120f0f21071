#include "planner/catalogue/device_catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDevice =
    "{tflops: 1, memory_gb: 2, memory_gb_per_s: 3, link_gb_per_s: 4, network_gbit_per_s: 8, "
    "power_w: 0, source: me";

std::string message_of(const std::string& yaml) {
  try {
    (void)DeviceCatalogue::parse(yaml, "mine.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

TEST(DeviceCatalogue, TheBuiltInOneHasThePapersDevicesWithTheirPrices) {
  const DeviceCatalogue catalogue = DeviceCatalogue::built_in();
  const DeviceSpec& h100 = catalogue.priced("h100");
  EXPECT_DOUBLE_EQ(h100.flop_per_s, 989e12);
  EXPECT_DOUBLE_EQ(h100.memory_bytes_per_s, 3.35e12);
  EXPECT_DOUBLE_EQ(h100.network_bytes_per_s, 50e9);
  EXPECT_DOUBLE_EQ(h100.dollars_per_h, 11.06);
  EXPECT_DOUBLE_EQ(catalogue.priced("h20").dollars_per_h, 4.63);
  EXPECT_DOUBLE_EQ(catalogue.priced("tpu-v6e").dollars_per_h, 2.70);
  for (const auto& [name, entry] : catalogue.entries()) {
    EXPECT_FALSE(entry.source.empty()) << name;
    if (entry.price) {
      EXPECT_FALSE(entry.price->source.empty()) << name;
      EXPECT_EQ(entry.price->date.size(), 10U) << name;
    }
  }
}

TEST(DeviceCatalogue, ADeviceWithoutAPriceSaysHowToGiveOne) {
  DeviceCatalogue catalogue = DeviceCatalogue::built_in();
  try {
    (void)catalogue.priced("l4");
    FAIL() << "no price, no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--price l4="));
  }
  catalogue.set_price("l4", 0.5);
  EXPECT_DOUBLE_EQ(catalogue.priced("l4").dollars_per_h, 0.5);
  EXPECT_THROW(catalogue.set_price("l5", 0.5), Error);
}

TEST(DeviceCatalogue, AFileReplacesAndAdds) {
  DeviceCatalogue catalogue = DeviceCatalogue::built_in();
  catalogue.add(DeviceCatalogue::parse(
      std::string("h20: ") + kDevice + "}\nmine: " + kDevice + "}\n", "mine.yaml"));
  EXPECT_DOUBLE_EQ(catalogue.entry("h20").spec.flop_per_s, 1e12);
  EXPECT_DOUBLE_EQ(catalogue.entry("mine").spec.network_bytes_per_s, 1e9);
  EXPECT_DOUBLE_EQ(catalogue.entry("h100").spec.flop_per_s, 989e12);
}

TEST(DeviceCatalogue, MistakesAreNamed) {
  EXPECT_THAT(message_of("["), HasSubstr("mine.yaml"));
  EXPECT_THAT(message_of("- a"), HasSubstr("mapping"));
  EXPECT_THAT(message_of("x: 3"), HasSubstr("device 'x'"));
  EXPECT_THAT(message_of("x: {tflops: fast}"), HasSubstr("'tflops' must be a number"));
  EXPECT_THAT(message_of("x: {tflops: -1}"), HasSubstr("'tflops' must be a number"));
  EXPECT_THAT(message_of("x: {tflops: .nan}"), HasSubstr("'tflops' must be a number"));
  EXPECT_THAT(message_of("x: {tflops: 1}"), HasSubstr("'memory_gb' is missing"));
  EXPECT_THAT(message_of(std::string("x: ") + kDevice + ", colour: red}"),
              HasSubstr("unknown key 'colour'"));
  EXPECT_THAT(message_of(std::string("x: ") + kDevice + ", price: {dollars_per_h: 1}}"),
              HasSubstr("'date' is missing"));
}

TEST(DeviceCatalogue, AnUnknownNameListsTheKnownOnes) {
  try {
    (void)DeviceCatalogue::built_in().entry("h300");
    FAIL() << "found h300";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("h100, h20"));
  }
}

}  // namespace
}  // namespace lamina::planner
