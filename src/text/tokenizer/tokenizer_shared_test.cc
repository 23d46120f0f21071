// Published vocabularies of ../shared against their expected ids.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "support/paths.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace lamina {
namespace {

using Ids = std::vector<int32_t>;
using nlohmann::json;

constexpr size_t kMaxBytes = 64 << 20;
constexpr EncodeOptions kPlain{.add_special_tokens = false, .parse_special = false};

std::string shared_file(const std::string& name) {
  return read_text_file(test::shared_path("data/" + name), kMaxBytes);
}

std::vector<std::string> texts() {
  const std::string terminator = "\n__ggml_vocab_test__\n";
  const std::string file = shared_file("tokenizers/fixtures/common.inp");
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end = file.find(terminator); end != std::string::npos;
       end = file.find(terminator, begin)) {
    parts.push_back(file.substr(begin, end - begin));
    begin = end + terminator.size();
  }
  return parts;
}

std::vector<Ids> expected_ids(const std::string& name) {
  std::istringstream file(shared_file("tokenizers/fixtures/" + name + ".out"));
  std::vector<Ids> all;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    Ids ids;
    for (int32_t id = 0; numbers >> id;) ids.push_back(id);
    all.push_back(std::move(ids));
  }
  return all;
}

void expect_fixtures(const Tokenizer& tokenizer, const std::string& name) {
  const std::vector<std::string> inputs = texts();
  const std::vector<Ids> expected = expected_ids(name);
  ASSERT_EQ(inputs.size(), 46);
  ASSERT_EQ(expected.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(inputs[i], kPlain).value_or_throw(), expected[i]) << inputs[i];
    EXPECT_EQ(tokenizer.decode(expected[i], true), inputs[i]);
    Detokenizer detokenizer(tokenizer, true, false);
    std::string text;
    for (const int32_t id : expected[i]) text += detokenizer.add(id);
    EXPECT_EQ(text + detokenizer.finish(), inputs[i]);
  }
}

// The file unpacked by gzip into the tests' own folder.
std::filesystem::path unpacked(const std::string& name) {
  const std::string command = "gzip -dc '" + test::shared_path("data/" + name).string() + "'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  const auto path = std::filesystem::path(testing::TempDir()) / "lamina_shared_tokenizer.json";
  std::ofstream out(path, std::ios::binary);
  std::array<char, 65536> buffer{};
  while (const size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) {
    out.write(buffer.data(), static_cast<std::streamsize>(size));
  }
  return path;
}

struct Vocabulary {
  const char* name;
  const char* dir;
};

// Named after what it holds, not where it lies.
std::ostream& operator<<(std::ostream& out, const Vocabulary& vocabulary) {
  return out << vocabulary.name;
}

class SharedVocabularies : public testing::TestWithParam<Vocabulary> {};

TEST_P(SharedVocabularies, FixtureIdsMatchAndDecodeBack) {
  LAMINA_SKIP_WITHOUT_SHARED("data/tokenizers/fixtures");
  const auto tokenizer = load_tokenizer(test::shared_path("data") / GetParam().dir);
  expect_fixtures(*tokenizer, GetParam().name);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    SharedVocabularies,
    testing::Values(Vocabulary{"gpt2", "tokenizers/gpt2"},
                    Vocabulary{"llama2", "tokenizers/llama2"},
                    Vocabulary{"mistral-7b-v0.1", "tokenizers/mistral-7b-v0.1"},
                    Vocabulary{"stories260K", "models/stories260K"}),
    [](const auto& param) { return std::string(param.param.name).substr(0, 7); });

TEST(SharedTokenizers, Qwen3) {
  LAMINA_SKIP_WITHOUT_SHARED("data/tokenizers/qwen3");
  const auto tokenizer =
      load_tokenizer_json(unpacked("tokenizers/qwen3/tokenizer.json.gz"),
                          test::shared_path("data/tokenizers/qwen3/tokenizer_config.json"));
  expect_fixtures(*tokenizer, "qwen3");
  EXPECT_EQ(tokenizer->eos_id(), 151645);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->encode("<|im_start|>cafe\u0301<|im_end|>", {}).value_or_throw(),
            tokenizer->encode("<|im_start|>caf\u00e9<|im_end|>", {}).value_or_throw());
  const Ids turn = tokenizer->encode("<|im_start|>user<|im_end|></think>", {}).value_or_throw();
  EXPECT_EQ(turn, (Ids{151644, 872, 151645, 151668}));
  EXPECT_EQ(tokenizer->decode(turn, true), "user</think>");
}

TEST(SharedTokenizers, SentencePieceModelOfLlama2) {
  LAMINA_SKIP_WITHOUT_SHARED("data/tokenizers/llama2");
  const auto tokenizer =
      load_sentencepiece_model(test::shared_path("data/tokenizers/llama2/tokenizer.model"));
  expect_fixtures(*tokenizer, "llama2");
  EXPECT_EQ(tokenizer->encode("Hello", {}).value_or_throw(), (Ids{1, 15043}));
}

TEST(SharedTokenizers, PromptsAndTextsOfTheReferenceRuns) {
  LAMINA_SKIP_WITHOUT_SHARED("data/models");
  for (const std::string model : {"stories260K", "tinystories-656K"}) {
    const auto tokenizer = load_tokenizer(test::shared_path("data/models/" + model));
    const json reference = json::parse(shared_file("models/" + model + "/reference_greedy.json"));
    for (const json& run : reference["cases"]) {
      const Ids prompt = run["prompt_ids"].get<Ids>();
      EXPECT_EQ(tokenizer->encode(run["prompt"].get<std::string>(), {}).value_or_throw(), prompt);
      Detokenizer detokenizer(*tokenizer, true, !run["prompt"].get<std::string>().empty());
      std::string text;
      for (const int32_t id : run["generated_ids"].get<Ids>()) text += detokenizer.add(id);
      EXPECT_EQ(text + detokenizer.finish(), run["generated_text"].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace lamina
