// Real templates, which stay out of the repository, against what jinja2 made of them.
#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "support/paths.h"
#include "text/chat_template_cases.h"

namespace lamina {
namespace {

constexpr size_t kMaxBytes = 1UL << 20;

class RealTemplate : public testing::TestWithParam<const char*> {};

TEST_P(RealTemplate, RendersAsInJinja2) {
  const std::string path = std::string("data/tokenizers/chat_templates/") + GetParam() + ".jinja";
  LAMINA_SKIP_WITHOUT_SHARED(path);
  test::expect_chats("text/chat_templates/real_templates.json",
                     GetParam(),
                     read_text_file(test::shared_path(path), kMaxBytes));
}

INSTANTIATE_TEST_SUITE_P(Published,
                         RealTemplate,
                         testing::Values("Qwen-Qwen2.5-7B-Instruct",
                                         "microsoft-Phi-3.5-mini-instruct",
                                         "mistralai-Mistral-Nemo-Instruct-2407"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           for (char& letter : name)
                             if (letter == '-' || letter == '.') letter = '_';
                           return name;
                         });

TEST(Qwen3Template, RendersAsInJinja2) {
  constexpr const char* kPath = "data/tokenizers/qwen3/tokenizer_config.json";
  LAMINA_SKIP_WITHOUT_SHARED(kPath);
  const auto config = nlohmann::json::parse(read_text_file(test::shared_path(kPath), kMaxBytes));
  test::expect_chats("text/chat_templates/real_templates.json",
                     "qwen3",
                     config.at("chat_template").get<std::string>());
}

}  // namespace
}  // namespace lamina
