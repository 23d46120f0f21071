// docs/reproduction.md says what the planner's model gives: its lines are made here once more.
// Where one is missing the message has what should stand there.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/file.h"
#include "planner/catalogue/device_catalogue.h"
#include "planner/model_source.h"
#include "planner/paper/paper_numbers.h"
#include "planner/search.h"

namespace lamina::planner {
namespace {

using ::testing::HasSubstr;

std::string document() {
  constexpr size_t kMostBytes = 1 << 20;
  return read_text_file(std::string(LAMINA_SOURCE_DIR) + "/docs/reproduction.md", kMostBytes);
}

// By model and load.
std::vector<std::vector<PairResult>> results_at(double host_s) {
  std::vector<std::vector<PairResult>> results;
  for (const EqualCostPair& pair : equal_cost_pairs()) {
    std::vector<PairResult>& of_pair = results.emplace_back();
    for (const Load& load : paper_loads()) of_pair.push_back(compare_pair(pair, load, host_s));
  }
  return results;
}

struct Range {
  double least = 1e9;
  double mean = 0;
  double most = 0;
};

Range gains_at(double host_ms) {
  Range range;
  for (const auto& of_pair : results_at(1e-3 * host_ms)) {
    for (const PairResult& result : of_pair) {
      const double gain = result.throughput_gain();
      range = {std::min(range.least, gain), range.mean + gain / 12, std::max(range.most, gain)};
    }
  }
  return range;
}

TEST(Reproduction, HasTheGains) {
  const std::string text = document();
  for (const int host_ms : {0, 5, 10, 15}) {
    const Range gains = gains_at(host_ms);
    const char* const note = host_ms == 0 ? " (70B, Azure-Conv: a loss)" : "";
    EXPECT_THAT(text,
                HasSubstr(fmt::format("| {} | {:.2f}{} | {:.2f} | {:.2f} |",
                                      host_ms,
                                      gains.least,
                                      note,
                                      gains.mean,
                                      gains.most)));
  }
  const Range gains = gains_at(0);
  EXPECT_THAT(text,
              HasSubstr(fmt::format(
                  "**{:.2f} to {:.2f}, mean {:.2f}**", gains.least, gains.most, gains.mean)));
}

TEST(Reproduction, HasTheBatches) {
  std::vector<double> by_model;
  for (size_t i = 0; i < 3; ++i) {
    double sum = 0;
    for (const Load& load : paper_loads()) {
      const PairResult result = compare_pair(equal_cost_pairs()[i], load, 0);
      sum += static_cast<double>(result.offloaded.num_blocks) / result.colocated.num_blocks / 4;
    }
    by_model.push_back(sum);
  }
  EXPECT_THAT(document(),
              HasSubstr(fmt::format("{:.2f} ({:.2f}, {:.2f} and {:.2f} by model)",
                                    (by_model[0] + by_model[1] + by_model[2]) / 3,
                                    by_model[0],
                                    by_model[1],
                                    by_model[2])));
}

TEST(Reproduction, HasCostsBytesAndTimes) {
  const std::string text = document();
  std::string costs;
  std::string kv;
  std::string wire;
  const std::vector<EqualCostPair> pairs = equal_cost_pairs();
  for (const EqualCostPair& pair : pairs) {
    const ModelWork model = read_model_work(pair.model);
    const char* const comma = kv.empty() ? "" : ", ";
    kv += fmt::format("{}{:.3f}",
                      comma,
                      1e-6 * static_cast<double>(model.kv_layout(DType::kBF16, 1).block_bytes()));
    wire +=
        fmt::format("{}{:.3f}",
                    comma,
                    1e-6 * model.num_layers * (model.q_bytes + model.kv_bytes + model.out_bytes));
  }
  for (const EqualCostPair& pair : {pairs[0], pairs[1]}) {
    costs += fmt::format("{}{:.2f} / {:.2f}",
                         costs.empty() ? "" : ", ",
                         paper_dollars_per_h(pair.offloaded),
                         paper_dollars_per_h(pair.colocated));
  }
  EXPECT_THAT(text, HasSubstr(kv + " MB; " + wire + " MB"));
  EXPECT_THAT(text, HasSubstr(costs));
  const ModelWork model = read_model_work("llama3-70b");
  EXPECT_THAT(text,
              HasSubstr(fmt::format("({:.1f} GB/s at most); at 2048 tokens {:.1f} GB/s",
                                    1e-9 * required_bandwidth(model, 4096, 300, 0.2),
                                    1e-9 * required_bandwidth(model, 2048, 300, 0.2))));
}

// Best tokens per dollar of up to 16 + 16 devices over those of the best homogeneous placement.
double free_gain(const ModelWork& model, const Load& load, double host_s) {
  const DeviceCatalogue catalogue = DeviceCatalogue::built_in();
  Question question{.model = &model,
                    .load = &load,
                    .devices = {catalogue.priced("h100"), catalogue.priced("h20")},
                    .assumptions = Assumptions::paper()};
  question.assumptions.colocated_host_s = host_s;
  const SearchResult found = search(question, question.devices.model, {});
  return found.best_colocated()->dollars_per_mtoken / found.best_offloaded()->dollars_per_mtoken;
}

TEST(Reproduction, HasTheGainsOfFreeRatios) {
  constexpr double kHostSeconds = 10e-3;
  const std::string text = document();
  for (const auto& [row, name] :
       {std::pair("33B", "llama-33b"), {"65B", "llama-65b"}, {"70B", "llama3-70b"}}) {
    const ModelWork model = read_model_work(name);
    std::string line = fmt::format("| {} |", row);
    for (const Load& load : paper_loads()) {
      line += fmt::format(
          " {:.2f} ({:.2f}) |", free_gain(model, load, 0), free_gain(model, load, kHostSeconds));
    }
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Reproduction, HasWhereProductsTurnComputeBound) {
  const DeviceSpec device = DeviceCatalogue::built_in().priced("h100");
  constexpr double kFlopPerByte = 1;  // two a weight of two bytes
  const double sequences = device.flop_per_s / device.memory_bytes_per_s / kFlopPerByte;
  EXPECT_THAT(document(), HasSubstr(fmt::format("compute-bound at {:.0f} sequences", sequences)));
}

}  // namespace
}  // namespace lamina::planner
