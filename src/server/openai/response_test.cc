#include "server/openai/response.h"

#include <gtest/gtest.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "server/fake_tokenizer.h"
#include "server/openai/token_text.h"

namespace lamina::server {
namespace {

using Json = nlohmann::json;

const FakeTokenizer& tokenizer() {
  static const FakeTokenizer kInstance;
  return kInstance;
}

ResponseContext make_context(ApiKind kind) {
  ResponseContext context;
  context.kind = kind;
  context.id = "id";
  context.model = "tiny";
  context.prompts = {{{FakeTokenizer::kBos, 'a'}, "a"}};
  context.tokenizer = &tokenizer();
  return context;
}

GenerationDelta make_delta(const std::string& text, const std::vector<int32_t>& ids) {
  GenerationDelta delta;
  delta.text = text;
  for (const int32_t id : ids) {
    delta.tokens.push_back({id, -0.5F, {{id, -0.5F}, {'z', -1.5F}}});
  }
  return delta;
}

GenerationDelta make_end(FinishReason reason) {
  GenerationDelta delta;
  delta.finish_reason = reason;
  return delta;
}

TEST(TokenText, ShowsPartsOfCharactersAsBytes) {
  EXPECT_EQ(token_text(&tokenizer(), 'a'), "a");
  EXPECT_EQ(token_text(&tokenizer(), 0xC3), "bytes:\\xc3");
  EXPECT_EQ(token_text(nullptr, 7), "token_id:7");
}

TEST(TokenText, KnowsUtf8) {
  for (const char* good : {"", "a", "\xC3\xB6", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80",
                          "\xC3",
                          "\xC0\x80",
                          "\xE0\x80\x80",
                          "\xED\xA0\x80",
                          "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80",
                          "\xFF",
                          "a\xE2\x82"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(ResponseBody, EchoScoresThePromptAsHarnessesRead) {
  ResponseContext context = make_context(ApiKind::kCompletion);
  context.echo = true;
  context.wants_logprobs = true;
  ResponseBody body(context);
  PromptScores scores;
  scores.tokens = make_delta("", {'a'}).tokens;
  body.add(0, scores);
  body.add(0, make_delta("\xC3\xB6", {0xC3, 0xB6}));
  EXPECT_FALSE(body.progress().is_complete());
  body.add(0, make_end(FinishReason::kLength));
  ASSERT_TRUE(body.progress().is_complete());
  const Json choice = Json::parse(body.json())["choices"][0];
  EXPECT_EQ(choice["text"], "a\xC3\xB6");
  EXPECT_EQ(choice["finish_reason"], "length");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json({"<s>", "a", "bytes:\\xc3", "bytes:\\xb6"}));
  EXPECT_EQ(logprobs["token_logprobs"], Json({nullptr, -0.5, -0.5, -0.5}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 0, 1, 2}));  // BOS is not in the text
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["top_logprobs"][1], Json({{"a", -0.5}, {"z", -1.5}}));
}

TEST(ResponseBody, ChoicesOfSeveralPromptsAreInOrder) {
  ResponseContext context = make_context(ApiKind::kCompletion);
  context.n = 2;
  context.prompts.push_back({{'b'}, "b"});
  context.return_token_ids = true;
  ResponseBody body(context);
  for (const int32_t prompt_idx : {1, 0}) {
    for (const int32_t choice_idx : {1, 0}) {
      GenerationDelta delta = make_delta("x", {prompt_idx * 2 + choice_idx});
      delta.choice_idx = choice_idx;
      body.add(prompt_idx, delta);
      delta = make_end(FinishReason::kStop);
      delta.choice_idx = choice_idx;
      delta.stop_reason = "END";
      body.add(prompt_idx, delta);
    }
  }
  const Json answer = Json::parse(body.json());
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["token_ids"], Json::array({i}));
    EXPECT_EQ(answer["choices"][i]["stop_reason"], "END");
  }
  EXPECT_EQ(answer["choices"][2]["prompt_token_ids"], Json::array({'b'}));
  EXPECT_EQ(answer["usage"],
            Json({{"prompt_tokens", 3}, {"completion_tokens", 4}, {"total_tokens", 7}}));
}

TEST(ResponseBody, ImpossibleTokensHaveAFiniteLogprob) {
  ScoredToken token{'a', -INFINITY, {{'b', NAN}}};
  const Json entry = Json::parse(chat_logprob(&tokenizer(), token).dump());
  EXPECT_EQ(entry["logprob"], -9999.0);
  EXPECT_EQ(entry["top_logprobs"][0]["logprob"], -9999.0);
}

TEST(ResponseStream, HoldsNothingAndSendsNothingEmpty) {
  ResponseStream stream(make_context(ApiKind::kChat));
  const std::string first = stream.add(0, make_delta("", {0xC3}));
  EXPECT_NE(first.find(R"("delta":{"role":"assistant","content":""})"), std::string::npos);
  EXPECT_EQ(stream.add(0, make_delta("", {0xB6})), "");
  EXPECT_NE(stream.add(0, make_delta("\xC3\xB6", {0xB6})).find("\xC3\xB6"), std::string::npos);
  const std::string last = stream.add(0, make_end(FinishReason::kStop));
  EXPECT_NE(last.find(R"("delta":{},"logprobs":null,"finish_reason":"stop")"), std::string::npos);
  EXPECT_EQ(stream.finish(), "data: [DONE]\n\n");
}

TEST(ResponseStream, InvalidTextStaysValidJson) {
  ResponseStream stream(make_context(ApiKind::kCompletion));
  const std::string event = stream.add(0, make_delta("\xC3", {0xC3}));
  EXPECT_TRUE(Json::accept(event.substr(6))) << event;
}

TEST(ResponseStream, ErrorsAreOneEvent) {
  const std::string event = sse_error(error_from_status(unavailable("worker\n\nlost")));
  EXPECT_EQ(event.find("\n\n"), event.size() - 2);
  EXPECT_EQ(Json::parse(event.substr(6))["error"]["message"], "worker\n\nlost");
}

}  // namespace
}  // namespace lamina::server
