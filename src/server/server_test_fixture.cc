#include "server/server_test_fixture.h"

#include <nlohmann/json.hpp>

namespace lamina::server {

namespace {

Result<std::string> render_lines(const std::string& context_json) {
  std::string prompt;
  const nlohmann::json context = nlohmann::json::parse(context_json);
  for (const nlohmann::json& message : context["messages"]) {
    if (message["role"] == "bad") return invalid_argument("no such role");
    prompt +=
        message["role"].get<std::string>() + ": " + message["content"].get<std::string>() + "\n";
  }
  return prompt;
}

}  // namespace

ServerTest::ServerTest() {
  config_.port = 0;
  config_.served_model_names = {"tiny", "org/alias"};
  config_.version = "1.2.3";
  config_.vocab_size = FakeTokenizer::kVocabSize;
  config_.render_chat = render_lines;
}

ServerTest::Json ServerTest::error_of(const TestReply& reply) {
  const Json body = Json::parse(reply.body, nullptr, false);
  EXPECT_TRUE(body.is_object() && body.contains("error")) << reply.status << " " << reply.body;
  if (!body.is_object() || !body.contains("error")) return Json::object();
  for (const char* member : {"message", "type", "param", "code"}) {
    EXPECT_TRUE(body["error"].contains(member)) << reply.body;
  }
  return body["error"];
}

}  // namespace lamina::server
