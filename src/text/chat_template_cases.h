// What the chat template tests share: goldens that jinja2 rendered
// (tests/fixtures/text/chat_templates/make_goldens.py).
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace lamina::test {

nlohmann::ordered_json read_json(const std::string& fixture);

// `golden` holds `expected`, null where jinja2 raises; then `raised` if the template itself did.
void expect_rendering(const std::string& source,
                      const std::string& context,
                      const nlohmann::ordered_json& golden);

// Every chat of the fixture through the template that it knows as `name`.
void expect_chats(const std::string& fixture, const std::string& name, const std::string& source);

}  // namespace lamina::test
