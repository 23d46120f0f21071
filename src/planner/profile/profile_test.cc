#include "planner/profile/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/thread_pool.h"
#include "planner/profile/meter.h"
#include "planner/profile/profiled_costs.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;

TEST(Fit, FindsCoefficientsThatAreThere) {
  std::vector<std::vector<double>> features;
  std::vector<double> seconds;
  for (double x = 1; x < 6; ++x) {
    for (double y = 1; y < 4; ++y) {
      features.push_back({1, x, x * y});
      seconds.push_back(2 + 3 * x + 0.5 * x * y);
    }
  }
  const LinearFit fit = fit_relative(features, seconds);
  EXPECT_NEAR(fit.coefficients[0], 2, 1e-6);
  EXPECT_NEAR(fit.coefficients[1], 3, 1e-6);
  EXPECT_NEAR(fit.coefficients[2], 0.5, 1e-6);
  EXPECT_LT(fit.worst_error, 1e-6);
}

TEST(Fit, HasNoNegativeCoefficientsAndTellsItsErrors) {
  const LinearFit fit = fit_relative({{1, 1}, {1, 2}, {1, 3}}, {10, 8, 6});
  EXPECT_EQ(fit.coefficients[1], 0);
  EXPECT_GT(fit.coefficients[0], 6);
  EXPECT_LT(fit.coefficients[0], 10);
  EXPECT_GT(fit.worst_error, fit.mean_error);
  // Features that say the same: one of them will do.
  const LinearFit same = fit_relative({{1, 2}, {2, 4}}, {3, 6});
  EXPECT_NEAR(same.at({4, 8}), 12, 1e-9);
}

// A machine whose times are known: products 1 us + 1 ns an element and row, and so on.
class KnownMeter final : public Meter {
 public:
  double product_s(const ProductPoint& p) override {
    return 1e-6 + 1e-9 * static_cast<double>(p.outputs * p.inputs) * p.rows;
  }
  double attention_s(const AttentionPoint& p) override {
    return 2e-6 + 1e-9 * p.sequences * p.context * p.kv_heads * p.head_dim;
  }
  SlicePoint slices(int32_t rows) override {
    const double all_s = 1e-3 + 1e-4 * rows;
    return {.rows = rows,
            .seconds = all_s,
            .first_seconds = all_s / 8,
            .layer_seconds = all_s / 4,
            .rested_seconds = all_s * 0.75};
  }
  std::optional<PacePoint> paces(int32_t rows, const AttentionPoint& /*attention*/) override {
    return PacePoint{.rows = rows, .in_turns = {1.0625, 1.125}, .side_by_side = {1.25, 1.5}};
  }
  double round_trip_s(const TransportPoint& p) override {
    return 3e-6 + 2e-10 * static_cast<double>(p.bytes);
  }
};

ModelWork model() {
  ModelWork work;
  work.name = "tiny";
  work.num_layers = 3;
  work.num_heads = work.num_kv_heads = 4;
  work.head_dim = work.value_dim = 16;
  work.q_bytes = work.out_bytes = 128;
  work.kv_bytes = 256;
  work.products = {{64, 64, 12}, {160, 64, 6}, {64, 160, 3}};
  return work;
}

Profile known_profile() {
  Profile profile{.machine = "a \"machine\"",
                  .device = "cpu",
                  .transport = "shm",
                  .threads = 2,
                  .memory_bytes = 1e9,
                  .model = "tiny"};
  KnownMeter meter;
  ProfileGrid grid = ProfileGrid::of(model(), 32, 512);
  grid.add_slices(32);
  measure(meter, grid, profile);
  return profile;
}

TEST(Profile, ItsFitGivesTimesOfShapesThatWereNotMeasured) {
  const ProfileFit fit{known_profile()};
  EXPECT_NEAR(fit.product_s(11, 100, 90), 1e-6 + 11 * 9e-6, 2e-7);
  EXPECT_NEAR(fit.product_s(64, 100, 90), 64 * 9e-6, 4e-6);
  EXPECT_NEAR(fit.attention_s(5, 5 * 300, 2, 16), 2e-6 + 48e-6, 1e-8);
  EXPECT_NEAR(fit.round_trip_s(1e5), 23e-6, 1e-9);
  EXPECT_THAT(fit.residuals(known_profile()), HasSubstr("attention: interpolated between"));
}

TEST(Profile, ComesBackFromItsFile) {
  const Profile written = known_profile();
  const Profile read = Profile::parse(written.to_yaml(), "p.yaml");
  EXPECT_EQ(read.machine, written.machine);
  EXPECT_EQ(read.threads, 2);
  ASSERT_EQ(read.products.size(), written.products.size());
  EXPECT_EQ(read.products.back().outputs, written.products.back().outputs);
  EXPECT_NEAR(read.products.back().seconds, written.products.back().seconds, 1e-7);
  EXPECT_EQ(read.attention.size(), written.attention.size());
  EXPECT_EQ(read.transports.size(), written.transports.size());
  EXPECT_EQ(read.slices.size(), written.slices.size());
  EXPECT_NEAR(read.slices.back().layer_seconds, written.slices.back().layer_seconds, 1e-7);
  EXPECT_NEAR(read.slices.back().rested_seconds, written.slices.back().rested_seconds, 1e-7);
  ASSERT_EQ(read.paces.size(), 3);
  EXPECT_EQ(read.paces.back().rows, 32);
  EXPECT_EQ(read.paces.back().side_by_side.attention, 1.5);
  EXPECT_NEAR(read.paces.back().in_turns.slices, 1.0625, 1e-3);
}

// One GPU makes no round trips.
TEST(Profile, MayHaveNoRoundTrips) {
  Profile profile = known_profile();
  profile.transports.clear();
  const ProfileFit fit(Profile::parse(profile.to_yaml(), "p.yaml"));
  EXPECT_FALSE(fit.has_round_trips());
  EXPECT_GT(fit.device(profile).network_bytes_per_s, 1e14);
  const ModelWork work = model();
  const KvPartition all{.num_kv_heads = 4, .num_blocks = 8, .tiles = {{0, {0, 4}, {0, 8}}}};
  EXPECT_GT(ProfiledCosts(work, {}, all, fit).model_s(4), 0);
  EXPECT_THROW(ProfiledCosts(work, {.num_attention_workers = 1}, all, fit), Error);
}

TEST(Profile, SaysHowFarItGoes) {
  const ProfileFit fit{known_profile()};
  EXPECT_TRUE(fit.covers(32, 512));
  EXPECT_TRUE(fit.covers(1, 1));
  EXPECT_FALSE(fit.covers(33, 512));
  EXPECT_FALSE(fit.covers(32, 513));
}

TEST(Profile, OfWhatWasMeasuredMoreThanOnceTheLeastCounts) {
  Profile profile = known_profile();
  profile.slices = {
      {4, 1e-3, 1e-4, 2e-4, 9e-4}, {4, 9e-3, 9e-3, 9e-3, 9e-3}, {4, 2e-3, 2e-4, 3e-4, 8e-4}};
  profile.paces = {{4, {1, 1}, {1.1, 1.5}}, {4, {1, 1}, {1.3, 1.7}}};
  const ProfileFit fit(profile);
  EXPECT_DOUBLE_EQ(fit.slices_s(4), 1e-3);
  EXPECT_NEAR(fit.each_slice_s(4, 3).last_s, 1e-3 - 1e-4 - 2 * 2e-4, 1e-12);
  EXPECT_NEAR(fit.rested_pace(4), 0.8, 1e-12);
  EXPECT_NEAR(fit.side_by_side(100).slices, 1.2, 1e-12);
}

TEST(Profile, MistakesAreNamed) {
  const auto message = [](const std::string& yaml) -> std::string {
    try {
      (void)Profile::parse(yaml, "p.yaml");
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  std::string text = known_profile().to_yaml();
  EXPECT_THAT(message("[]"), HasSubstr("mapping"));
  EXPECT_THAT(message("machine: a"), HasSubstr("'device' is missing"));
  EXPECT_THAT(message(text + "extra: 1\n"), HasSubstr("unknown key 'extra'"));
  EXPECT_THAT(message(text.substr(0, text.find("attention:\n"))), HasSubstr("'attention'"));
  const size_t seconds = text.find("seconds: ", text.find("products:")) + 9;
  EXPECT_THAT(message(text.substr(0, seconds) + "-" + text.substr(seconds)),
              HasSubstr("products[0]: 'seconds' must be"));
}

TEST(ProfiledCosts, AddUpAModelsShapes) {
  const ProfileFit fit{known_profile()};
  ModelWork work = model();
  work.name = "another";  // than that whose slices were measured
  const PlacementSpec placement{.num_attention_workers = 2};
  const KvPartition halves{
      .num_kv_heads = 4, .num_blocks = 8, .tiles = {{0, {0, 2}, {0, 8}}, {1, {2, 4}, {0, 8}}}};
  const ProfiledCosts costs(work, placement, halves, fit);
  constexpr double kElements = 12 * 64 * 64 + 9 * 160 * 64;
  EXPECT_NEAR(costs.model_s(8), 21e-6 + 8e-9 * kElements, 1e-6);
  EXPECT_NEAR(costs.attention_s(8, 8 * 256), 3 * (2e-6 + 1e-9 * 8 * 256 * 2 * 16), 1e-8);
  const ProfiledCosts shared(work, placement, halves, fit, {.workers_per_device = 2});
  EXPECT_NEAR(shared.attention_s(8, 2048), 2 * costs.attention_s(8, 2048), 1e-12);
  EXPECT_NEAR(costs.wire(10).latency_s, 3 * 3e-6, 1e-9);
  EXPECT_NEAR(costs.wire(10).kv_s, 10 * 3 * 256 * 1e-10, 1e-12);
}

TEST(ProfiledCosts, TakeSlicesThatWereMeasuredWhole) {
  const ProfileFit fit(known_profile());
  const ModelWork work = model();
  const KvPartition all{.num_kv_heads = 4, .num_blocks = 8, .tiles = {{0, {0, 4}, {0, 8}}}};
  const PlacementSpec placement{.num_attention_workers = 1};
  const ProfiledCosts costs(work, placement, all, fit);
  EXPECT_NEAR(costs.model_s(5), 1.5e-3, 1e-9);
  ASSERT_TRUE(costs.slices(5).has_value());
  EXPECT_NEAR(costs.slices(5)->last_s, 1.5e-3 * (1 - 1 / 8.0 - 2 / 4.0), 1e-9);
  EXPECT_EQ(costs.side_by_side(8).slices, 1);
  EXPECT_NEAR(costs.in_turns(8).slices, 0.75, 1e-9);
  const ProfiledCosts shared(work, placement, all, fit, {.has_both = true});
  EXPECT_NEAR(shared.side_by_side(8).slices, 1.25, 1e-9);
  EXPECT_NEAR(shared.in_turns(8).attention, 1.125, 1e-9);
}

TEST(ProfiledCosts, RefuseWhatAProfileCannotSay) {
  const Profile profile = known_profile();
  const ProfileFit fit(profile);
  const KvPartition all{.num_kv_heads = 4, .num_blocks = 8, .tiles = {{0, {0, 4}, {0, 8}}}};
  ModelWork work = model();
  EXPECT_THROW(ProfiledCosts(work, {.tensor_parallel = 2, .num_attention_workers = 1}, all, fit),
               Error);
  work.expert_bytes = 1e9;
  EXPECT_NO_THROW(ProfiledCosts(work, {.num_attention_workers = 1}, all, fit));
  work.name = "another";
  EXPECT_THROW(ProfiledCosts(work, {.num_attention_workers = 1}, all, fit), Error);
}

// That it measures; how fast the machine is is not for a test to say.
TEST(HostMeter, MeasuresThisMachine) {
  ThreadPool pool(1);
  const auto meter = make_host_meter({.transport = TransportKind::kLoopback,
                                      .working_set_bytes = 1 << 20,
                                      .time = std::chrono::microseconds(100)},
                                     StreamView(pool),
                                     StreamView(pool));
  Profile profile;
  measure(*meter, ProfileGrid::of(model(), 4, 64), profile);
  for (const ProductPoint& point : profile.products) EXPECT_GT(point.seconds, 0);
  for (const AttentionPoint& point : profile.attention) EXPECT_GT(point.seconds, 0);
  for (const TransportPoint& point : profile.transports) EXPECT_GT(point.seconds, 0);
  const ProfileFit fit(profile);
  EXPECT_GT(fit.product_s(3, 64, 64), 0);
}

}  // namespace
}  // namespace lamina::planner
