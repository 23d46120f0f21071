// What a planner must reproduce of the paper (PAPER 3.3, 9 and 9.1): expected values are that
// page's, to their last printed digit.
#include "planner/paper/paper_numbers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "planner/model_source.h"

namespace lamina::planner {
namespace {

TEST(PaperNumbers, EqualCostPairsCostWhatTable5Says) {
  const std::vector<EqualCostPair> pairs = equal_cost_pairs();
  EXPECT_NEAR(paper_dollars_per_h(pairs[0].offloaded), 20.32, 1e-9);
  EXPECT_NEAR(paper_dollars_per_h(pairs[0].colocated), 22.12, 1e-9);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_NEAR(paper_dollars_per_h(pairs[i].offloaded), 40.64, 1e-9);
    EXPECT_NEAR(paper_dollars_per_h(pairs[i].colocated), 44.24, 1e-9);
  }
}

TEST(PaperNumbers, BytesOfATokenAreTable3s) {
  constexpr std::array kKvMb = {1.597, 2.621, 0.328};
  constexpr std::array kWireMb = {3.195, 5.243, 2.949};
  for (size_t i = 0; i < 3; ++i) {
    const ModelWork model = read_model_work(equal_cost_pairs()[i].model);
    const auto kv = static_cast<double>(model.kv_layout(DType::kBF16, 1).block_bytes());
    EXPECT_NEAR(kv / 1e6, kKvMb[i], 5e-4);
    const double wire = (model.q_bytes + model.kv_bytes + model.out_bytes) * model.num_layers;
    EXPECT_NEAR(wire / 1e6, kWireMb[i], 5e-4);
  }
}

// The tables give batches as fractions; an allocator holds whole sequences. Where PAPER 9.1 prints
// 53 for 33B on Azure-Code its own formula gives 172.8e9 / (1597440 * 2061.75) = 52.47.
TEST(PaperNumbers, BatchesAreWhatMemoryHolds) {
  constexpr double kLamina[3][4] = {
      {86, 52, 8.9, 12.5}, {105, 64, 10.8, 15.2}, {837, 512, 86, 122}};
  constexpr double kColocated[3][4] = {{39, 24, 4.1, 5.7}, {48, 29, 4.9, 7.0}, {364, 223, 38, 53}};
  double ratios = 0;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 4; ++j) {
      const EqualCostPair pair = equal_cost_pairs()[i];
      const Load load = paper_loads()[j];
      const PairResult result = compare_pair(pair, load, 0);
      const double offloaded = result.offloaded.num_blocks / load.context;
      const double colocated = result.colocated.num_blocks / load.context;
      const auto rounding = [](double table) { return table < 20 ? 0.0501 : 0.501; };
      EXPECT_NEAR(offloaded, kLamina[i][j], rounding(kLamina[i][j])) << pair.model << load.name;
      EXPECT_NEAR(colocated, kColocated[i][j], rounding(kColocated[i][j]))
          << pair.model << load.name;
      EXPECT_EQ(result.offloaded.num_sequences, std::floor(offloaded));
      EXPECT_EQ(result.colocated.num_sequences, std::floor(colocated));
      ratios += offloaded / colocated;
    }
  }
  EXPECT_NEAR(ratios / 12, 2.22, 0.005);
  // The paper's own mean ratio, to which PAPER 9.1 allows a tenth.
  EXPECT_NEAR(ratios / 12, 2.39, 0.239);
}

TEST(PaperNumbers, TimesOfTheSaturatedPlacement) {
  const StepEstimate step = offloaded_step(equal_cost_pairs()[2], 1260.3, 800, false);
  constexpr double kAllReduces = 2 * 80 * 15e-6;
  constexpr double kRoundTrips = 80 * 33e-6;
  EXPECT_NEAR(1e3 * (step.model_s - kAllReduces), 79.4, 0.05);
  EXPECT_NEAR(1e3 * step.attention_s, 25.8, 0.05);
  EXPECT_NEAR(1e3 * (step.wire_s - kRoundTrips), 25.8, 0.05);
}

TEST(PaperNumbers, RequiredBandwidthIsFigure4s) {
  constexpr std::array<double, 4> kContexts = {2048, 4096, 8192, 16384};
  constexpr std::array<double, 5> kBatches = {10, 50, 100, 200, 300};
  constexpr double kExpected[4][5] = {{2.8, 11.9, 20.4, 31.6, 36.1},
                                      {2.7, 10.2, 15.8, 21.8, 23.9},
                                      {2.5, 7.9, 10.9, 13.5, 14.2},
                                      {2.2, 5.5, 6.7, 7.6, 7.9}};
  const ModelWork model = read_model_work("llama3-70b");
  for (size_t i = 0; i < kContexts.size(); ++i) {
    for (size_t j = 0; j < kBatches.size(); ++j) {
      const double gb_per_s = required_bandwidth(model, kContexts[i], kBatches[j], 0.2) / 1e9;
      EXPECT_NEAR(gb_per_s, kExpected[i][j], 0.0501) << kContexts[i] << " " << kBatches[j];
      if (kContexts[i] >= 4096) {
        EXPECT_LE(gb_per_s, 30);
      }
    }
  }
}

struct Gains {
  double min, mean, max;
};

Gains gains_at(double host_s) {
  Gains gains{1e9, 0, 0};
  for (const EqualCostPair& pair : equal_cost_pairs()) {
    for (const Load& load : paper_loads()) {
      const double gain = compare_pair(pair, load, host_s).throughput_gain();
      gains = {std::min(gains.min, gain), gains.mean + gain / 12, std::max(gains.max, gain)};
    }
  }
  return gains;
}

TEST(PaperNumbers, GainsDependOnTheBaselinesHostTime) {
  constexpr double kExpected[4][4] = {{0e-3, 0.90, 1.21, 1.33},
                                      {5e-3, 1.03, 1.42, 1.58},
                                      {10e-3, 1.16, 1.63, 1.83},
                                      {15e-3, 1.29, 1.84, 2.08}};
  for (const auto& row : kExpected) {
    const Gains gains = gains_at(row[0]);
    EXPECT_NEAR(gains.min, row[1], 0.00501) << row[0];
    EXPECT_NEAR(gains.mean, row[2], 0.00501) << row[0];
    EXPECT_NEAR(gains.max, row[3], 0.00501) << row[0];
  }
}

TEST(PaperNumbers, TheLosingPairIsThe70BOnShortContexts) {
  const PairResult result = compare_pair(equal_cost_pairs()[2], paper_loads()[0], 0);
  EXPECT_NEAR(result.throughput_gain(), 0.90, 0.005);
  EXPECT_EQ(result.offloaded.step.limit, Limit::kModel);
}

// Fig. 14: at most 13.2 % and 3.5 %, more for the model whose K and V are not shared by heads.
TEST(PaperNumbers, OverlapGainsMoreWithoutGroupedQueries) {
  const std::vector<EqualCostPair> pairs = equal_cost_pairs();
  for (double batch = 1; batch <= 64; ++batch) {
    const double gain_65b = overlap_gain(pairs[1], 4096, batch);
    const double gain_70b = overlap_gain(pairs[2], 4096, batch);
    EXPECT_GT(gain_65b, gain_70b) << batch;
    EXPECT_GT(gain_70b, 0) << batch;
    EXPECT_LT(gain_65b, 0.1325) << batch;  // rounds to 13.2 % where it is largest
    EXPECT_LT(gain_70b, 0.0355) << batch;
  }
  // It grows until attention is as long as what it hides.
  EXPECT_GT(overlap_gain(pairs[1], 4096, 4), 1.5 * overlap_gain(pairs[1], 4096, 1));
}

}  // namespace
}  // namespace lamina::planner
