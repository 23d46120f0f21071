#include "text/chat_template_cases.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "support/paths.h"
#include "text/chat_template.h"

namespace lamina::test {

nlohmann::ordered_json read_json(const std::string& fixture) {
  return nlohmann::ordered_json::parse(read_text_file(fixture_path(fixture), 16UL << 20));
}

void expect_rendering(const std::string& source,
                      const std::string& context,
                      const nlohmann::ordered_json& golden) {
  SCOPED_TRACE(source.substr(0, 300));
  const Result<std::string> rendered = [&]() -> Result<std::string> {
    try {
      return ChatTemplate(source).render(context);
    } catch (const Error& error) {
      return error.status();
    }
  }();
  if (golden.at("expected").is_string()) {
    ASSERT_TRUE(rendered.ok()) << rendered.status().to_string();
    EXPECT_EQ(*rendered, golden.at("expected").get<std::string>());
  } else {
    ASSERT_FALSE(rendered.ok()) << *rendered;
    if (golden.contains("raised")) {
      EXPECT_EQ(rendered.status().message(), golden.at("raised").get<std::string>());
    }
  }
}

void expect_chats(const std::string& fixture, const std::string& name, const std::string& source) {
  const nlohmann::ordered_json goldens = read_json(fixture);
  const nlohmann::ordered_json& contexts = goldens.at("contexts");
  const nlohmann::ordered_json& renderings = goldens.at("renderings").at(name);
  ASSERT_GT(contexts.size(), 50U);
  ASSERT_EQ(contexts.size(), renderings.size());
  for (size_t i = 0; i < contexts.size(); ++i) {
    SCOPED_TRACE(name + ", chat " + std::to_string(i));
    expect_rendering(source, contexts[i].dump(), renderings[i]);
  }
}

}  // namespace lamina::test
