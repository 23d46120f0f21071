// A fixture model ready to be run, in f32 or another dtype, with what an independent implementation
// made of it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/rewriter.h"
#include "engine/model_program.h"

namespace lamina::test {

inline constexpr int32_t kFixtureBlockSize = 16;
inline constexpr int32_t kFixtureBlocksPerSequence = 9;  // 144 tokens: prompts of 100 + 32
inline constexpr int32_t kFixtureSequences = 4;
inline constexpr int32_t kFixtureBlocks = kFixtureSequences * kFixtureBlocksPerSequence;

struct Golden {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<int32_t>> greedy;
  std::vector<std::vector<float>> logits;  // [prompt length, vocab] of each prompt
};

Golden read_golden(const std::filesystem::path& folder);

// Steps of up to `max_tokens`, whose every row may have logits.
ModelProgram load_fixture(const std::filesystem::path& folder,
                          int32_t num_ranks,
                          int32_t max_tokens,
                          const RewriteOptions& rewrites = {},
                          const Rotation& rotation = {},
                          DType dtype = DType::kF32);

// All of tests/fixtures/models, in order.
std::vector<std::string> fixture_names();

}  // namespace lamina::test
