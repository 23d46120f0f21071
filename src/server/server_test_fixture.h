// ServerTest: an HttpServer on a free port over a FakeEngine and a FakeTokenizer, for the tests
// that speak HTTP to it. Declares parents first: the server goes before the engine does.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "server/fake_engine.h"
#include "server/fake_tokenizer.h"
#include "server/http_server.h"
#include "server/test_client.h"

namespace lamina::server {

class ServerTest : public ::testing::Test {
 protected:
  using Json = nlohmann::json;

  // The chat template makes prompts of "role: content" lines and knows no role "bad".
  ServerTest();

  void start(const Tokenizer* tokenizer) {
    server_ = std::make_unique<HttpServer>(config_, engine_, tokenizer);
    server_->start();
  }
  void start() { start(&tokenizer_); }

  [[nodiscard]] uint16_t port() const { return server_->port(); }
  TestReply post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    return call(port(), "POST", path, body, headers);
  }
  TestReply complete(std::string_view members) {
    return post("/v1/completions", R"({"prompt": "ab", )" + std::string(members) + "}");
  }
  TestReply get(std::string_view path, std::string_view headers = {}) {
    return call(port(), "GET", path, {}, headers);
  }
  // The body's "error" object; checks its form.
  static Json error_of(const TestReply& reply);

  FakeEngine engine_{saying("h\xC3\xB6!")};
  FakeTokenizer tokenizer_;
  ServerConfig config_;
  std::unique_ptr<HttpServer> server_;
};

constexpr std::string_view kStreamForever =
    R"({"prompt": "ab", "stream": true, "max_tokens": 200})";
constexpr std::string_view kChatHi = R"({"messages": [{"role": "user", "content": "hi"}]})";

}  // namespace lamina::server
