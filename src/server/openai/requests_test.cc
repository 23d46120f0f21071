#include <gtest/gtest.h>

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "server/fake_tokenizer.h"
#include "server/openai/api_error.h"
#include "server/openai/chat_request.h"
#include "server/openai/completion_request.h"
#include "server/openai/json_fields.h"
#include "server/openai/tokenize_request.h"

namespace lamina::server {
namespace {

using Json = nlohmann::json;

ParseContext make_context() {
  ParseContext context;
  context.served_model_names = {"tiny", "alias"};
  context.vocab_size = FakeTokenizer::kVocabSize;
  context.bos_token = "<s>";
  context.eos_token = "</s>";
  return context;
}

// The error that `parse` throws; a 0 status if it throws none.
ApiError error_of(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const ApiError& error) {
    return error;
  }
  return {0, "", "no error"};
}
ApiError completion_error(const std::string& body) {
  return error_of([&] { parse_completion_request(body, make_context()); });
}
ApiError chat_error(const std::string& body) {
  return error_of([&] { parse_chat_request(body, make_context()); });
}
// A completion body with one more member.
std::string with(const std::string& member) {
  return R"({"prompt": "x", )" + member + "}";
}
std::string chat_with(const std::string& member) {
  return R"({"messages": [{"role": "user", "content": "hi"}], )" + member + "}";
}

TEST(CompletionRequest, TakesEveryPromptForm) {
  const auto prompts = [](const std::string& prompt) {
    return parse_completion_request(R"({"prompt": )" + prompt + "}", make_context()).prompts;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(prompts(R"("ab")"), (std::vector<Prompt>{std::string("ab")}));
  EXPECT_EQ(prompts(R"(["a", "b"])"), (std::vector<Prompt>{std::string("a"), std::string("b")}));
  EXPECT_EQ(prompts("[1, 2]"), (std::vector<Prompt>{Ids{1, 2}}));
  EXPECT_EQ(prompts("[[1], [2, 3]]"), (std::vector<Prompt>{Ids{1}, Ids{2, 3}}));
}

TEST(CompletionRequest, ReadsEveryField) {
  const CompletionRequest request = parse_completion_request(
      R"({"model": "alias", "prompt": "x", "max_tokens": 7, "n": 3, "temperature": 0.5,
          "top_p": 0.25, "top_k": 4, "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1,
          "repetition_penalty": 1.5, "logit_bias": {"5": -100}, "seed": -1, "stop": ["a", "b"],
          "stop_token_ids": [9], "include_stop_str_in_output": true, "ignore_eos": true,
          "min_tokens": 2, "skip_special_tokens": false, "add_special_tokens": false, "echo": true,
          "logprobs": 5, "stream": true, "return_token_ids": true,
          "stream_options": {"include_usage": true}, "user": "ignored", "no such field": [1]})",
      make_context());
  const GenerationOptions& options = request.options;
  const GenerationRequest& generation = options.generation;
  EXPECT_EQ(options.model, "alias");
  EXPECT_EQ(options.max_tokens, 7);
  EXPECT_EQ(options.seed, UINT64_MAX);
  EXPECT_TRUE(options.stream && options.include_usage && options.return_token_ids);
  EXPECT_TRUE(request.echo);
  EXPECT_FALSE(request.add_special_tokens);
  EXPECT_EQ(generation.n, 3);
  EXPECT_EQ(generation.min_tokens, 2);
  EXPECT_EQ(generation.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(generation.stop_ids, std::vector<int32_t>{9});
  EXPECT_TRUE(generation.include_stop_str_in_output && generation.ignore_eos);
  EXPECT_TRUE(generation.prompt_logprobs);
  EXPECT_FALSE(generation.skip_special_tokens);
  const SamplingParams& sampling = generation.sampling;
  EXPECT_EQ(sampling.temperature, 0.5F);
  EXPECT_EQ(sampling.top_p, 0.25F);
  EXPECT_EQ(sampling.top_k, 4);
  EXPECT_EQ(sampling.min_p, 0.125F);
  EXPECT_EQ(sampling.presence_penalty, 1.0F);
  EXPECT_EQ(sampling.frequency_penalty, -1.0F);
  EXPECT_EQ(sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(sampling.num_logprobs, 5);
  ASSERT_EQ(sampling.logit_bias.size(), 1U);
  EXPECT_EQ(sampling.logit_bias[0], std::make_pair(5, -100.0F));
}

TEST(CompletionRequest, TakesTheModelsDefaultsWhereTheRequestIsSilent) {
  ParseContext context = make_context();
  context.defaults.temperature = 0.25F;
  context.defaults.top_k = 50;
  const auto sampling = [&](const std::string& body) {
    return parse_completion_request(body, context).options.generation.sampling;
  };
  EXPECT_EQ(sampling(with(R"("temperature": null)")).temperature, 0.25F);
  EXPECT_EQ(sampling(with(R"("temperature": 1)")).temperature, 1.0F);
  EXPECT_EQ(sampling(with(R"("n": 1)")).top_k, 50);
  EXPECT_EQ(sampling(with(R"("top_k": -1)")).top_k, -1);
  EXPECT_EQ(sampling(with(R"("n": 1)")).num_logprobs, -1);
}

TEST(CompletionRequest, NamesTheFieldThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("temperature": -0.1)", "temperature"},
      {R"("temperature": "hot")", "temperature"},
      {R"("temperature": 1e999)", ""},  // not even a double
      {R"("top_p": 0)", "top_p"},
      {R"("top_p": 1.01)", "top_p"},
      {R"("top_k": -2)", "top_k"},
      {R"("top_k": 99999999999999999999)", "top_k"},
      {R"("min_p": 2)", "min_p"},
      {R"("repetition_penalty": 0)", "repetition_penalty"},
      {R"("presence_penalty": 2.5)", "presence_penalty"},
      {R"("frequency_penalty": [])", "frequency_penalty"},
      {R"("n": 0)", "n"},
      {R"("n": 65)", "n"},
      {R"("n": 1.5)", "n"},
      {R"("n": true)", "n"},
      {R"("max_tokens": -1)", "max_tokens"},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": 2147483648)", "max_tokens"},
      {R"("min_tokens": 3, "max_tokens": 2)", "min_tokens"},
      {R"("seed": 1.5)", "seed"},
      {R"("logprobs": 21)", "logprobs"},
      {R"("logprobs": true)", "logprobs"},
      {R"("stop": 5)", "stop"},
      {R"("stop": [""])", "stop"},
      {R"("stop": ["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])", "stop"},
      {R"("stop_token_ids": [258])", "stop_token_ids"},
      {R"("stop_token_ids": "1")", "stop_token_ids"},
      {R"("logit_bias": {"300": 1})", "logit_bias"},
      {R"("logit_bias": {"1x": 1})", "logit_bias"},
      {R"("logit_bias": {"1": 101})", "logit_bias"},
      {R"("logit_bias": [1])", "logit_bias"},
      {R"("stream": "yes")", "stream"},
      {R"("stream_options": {})", "stream_options"},
      {R"("stream": true, "stream_options": 1)", "stream_options"},
      {R"("stream": true, "stream_options": {"include_usage": 1})", "stream_options.include_usage"},
      {R"("response_format": {"type": "json_object"})", "response_format"},
      {R"("guided_json": {"a": 1})", "guided_json"},
      {R"("suffix": "x")", "suffix"},
      {R"("best_of": 3)", "best_of"},
      {R"("echo": 1)", "echo"},
      {R"("model": 5)", "model"},
      {R"("prompt": 5)", "prompt"},
      {R"("prompt": [])", "prompt"},
      {R"("prompt": ["a", 5])", "prompt[1]"},
      {R"("prompt": [1, "a"])", "prompt"},
      {R"("prompt": [[1], [258]])", "prompt[1]"},
      {R"("prompt": [-1])", "prompt"},
      {R"("prompt": null)", "prompt"},
  };
  for (const auto& [member, param] : cases) {
    const ApiError error = completion_error(with(member));
    EXPECT_EQ(error.http_status(), 400) << member;
    EXPECT_EQ(error.param(), param) << member << ": " << error.what();
  }
}

TEST(CompletionRequest, AcceptsWhatAsksForNothingSpecial) {
  for (const char* member : {R"("response_format": {"type": "text"})",
                             R"("suffix": "")",
                             R"("best_of": 1)",
                             R"("suffix": null)",
                             R"("use_beam_search": false)",
                             R"("logit_bias": {})",
                             R"("max_tokens": 16.0)",
                             R"("stop": null)",
                             R"("max_tokens": 0, "echo": true)"}) {
    EXPECT_EQ(completion_error(with(member)).http_status(), 0) << member;
  }
}

TEST(CompletionRequest, RefusesAnUnknownModelAndListsItsOwn) {
  const ApiError error = completion_error(with(R"("model": "gpt-9")"));
  EXPECT_EQ(error.http_status(), 404);
  EXPECT_EQ(error.code(), "model_not_found");
  EXPECT_NE(std::string(error.what()).find("tiny, alias"), std::string::npos);
}

TEST(CompletionRequest, SurvivesHostileJson) {
  const std::string deep(100'000, '[');
  const std::string deep_objects = [] {
    std::string text;
    for (int i = 0; i < 1000; ++i) text += R"({"a":)";
    return text;
  }();
  std::string wide = R"({"prompt": [)";
  for (size_t i = 0; i < kMaxJsonValues; ++i) wide += "1,";
  wide += "1]}";
  const std::string bodies[] = {"",
                                "null",
                                "[]",
                                "\"x\"",
                                "{",
                                "{\"prompt\": \"\xff\"}",
                                "{\"prompt\": \"\\ud800\"}",
                                "{\"prompt\": \"a\"} trailing",
                                std::string("{\"prompt\": \"a\0\"}", 16),
                                deep,
                                deep_objects,
                                wide,
                                with("\"seed\": 1e400"),
                                with("\"seed\": -99999999999999999999999")};
  for (const std::string& body : bodies) {
    const ApiError error = completion_error(body);
    EXPECT_EQ(error.http_status(), 400) << body.substr(0, 60);
    EXPECT_LT(std::string(error.what()).size(), 500U) << body.substr(0, 60);
    EXPECT_TRUE(Json::accept(error.body())) << error.body();
  }
  // The last of two equal keys counts.
  const CompletionRequest request =
      parse_completion_request(R"({"prompt": "a", "n": 1, "n": 2})", make_context());
  EXPECT_EQ(request.options.generation.n, 2);
}

TEST(CompletionRequest, NeedsIdsWithoutATokenizer) {
  ParseContext context = make_context();
  context.has_tokenizer = false;
  const auto error = [&](const std::string& body) {
    return error_of([&] { parse_completion_request(body, context); });
  };
  EXPECT_EQ(error(R"({"prompt": "a"})").param(), "prompt");
  EXPECT_EQ(error(R"({"prompt": [1], "stop": "a"})").param(), "stop");
  EXPECT_TRUE(parse_completion_request(R"({"prompt": [1]})", context).options.return_token_ids);
}

Json chat_context(const std::string& body) {
  return Json::parse(parse_chat_request(body, make_context()).prompt.template_context);
}

TEST(ChatRequest, GivesTheTemplateItsVariables) {
  const Json context = chat_context(R"({"messages": [
      {"role": "system", "content": "s"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "2"}],
    "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto",
    "chat_template_kwargs": {"enable_thinking": false, "messages": "mine"}})");
  EXPECT_EQ(context["messages"].size(), 4U);
  EXPECT_EQ(context["messages"][1]["content"], "a\nb");
  EXPECT_EQ(context["messages"][2]["content"], "");
  EXPECT_EQ(context["messages"][2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
  EXPECT_EQ(context["tools"].size(), 1U);
  EXPECT_EQ(context["add_generation_prompt"], true);
  EXPECT_EQ(context["enable_thinking"], false);
  EXPECT_EQ(context["bos_token"], "<s>");
  EXPECT_EQ(context["eos_token"], "</s>");
  EXPECT_TRUE(
      chat_context(chat_with(R"("tools": [{}], "tool_choice": "none")"))["tools"].is_null());
}

TEST(ChatRequest, NamesTheFieldThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "messages"},
      {R"({"messages": []})", "messages"},
      {R"({"messages": "hi"})", "messages"},
      {R"({"messages": ["hi"]})", "messages[0]"},
      {R"({"messages": [{"content": "hi"}]})", "messages[0].role"},
      {R"({"messages": [{"role": 1, "content": "hi"}]})", "messages[0].role"},
      {R"({"messages": [{"role": "user"}]})", "messages[0].content"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})",
       "messages[0].content[0].text"},
      {R"({"messages": [{"role": "user", "content": ["a"]}]})", "messages[0].content[0]"},
  };
  for (const auto& [body, param] : cases) {
    const ApiError error = chat_error(body);
    EXPECT_EQ(error.http_status(), 400) << body;
    EXPECT_EQ(error.param(), param) << body << ": " << error.what();
  }
  const std::pair<const char*, const char*> members[] = {
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("tool_choice": {"type": "function"})", "tool_choice"},
      {R"("tools": 5)", "tools"},
      {R"("tools": [5])", "tools"},
      {R"("functions": [{}])", "functions"},
      {R"("echo": true)", "echo"},
      {R"("top_logprobs": 3)", "top_logprobs"},
      {R"("logprobs": 3)", "logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("chat_template": "{{ x }}")", "chat_template"},
      {R"("chat_template_kwargs": [])", "chat_template_kwargs"},
      {R"("continue_final_message": true, "add_generation_prompt": true)",
       "continue_final_message"},
      {R"("max_completion_tokens": 0)", "max_completion_tokens"},
      {R"("modalities": ["audio"])", "modalities"},
      {R"("response_format": {"type": "json_schema"})", "response_format"},
  };
  for (const auto& [member, param] : members) {
    const ApiError error = chat_error(chat_with(member));
    EXPECT_EQ(error.http_status(), 400) << member;
    EXPECT_EQ(error.param(), param) << member << ": " << error.what();
  }
}

TEST(ChatRequest, MapsLogprobsAndLimits) {
  const auto sampling = [](const std::string& member) {
    return parse_chat_request(chat_with(member), make_context()).options.generation.sampling;
  };
  EXPECT_EQ(sampling(R"("logprobs": true)").num_logprobs, 0);
  EXPECT_EQ(sampling(R"("logprobs": true, "top_logprobs": 3)").num_logprobs, 3);
  EXPECT_EQ(sampling(R"("logprobs": false, "top_logprobs": 0)").num_logprobs, -1);
  const auto request = parse_chat_request(
      chat_with(R"("max_tokens": 5, "max_completion_tokens": 6)"), make_context());
  EXPECT_EQ(request.options.max_tokens, 6);
}

TEST(ChatRequest, ContinuesTheFinalMessage) {
  const auto request = parse_chat_request(
      R"({"messages": [{"role": "assistant", "content": "The answer is "}],
          "continue_final_message": true})",
      make_context());
  EXPECT_EQ(Json::parse(request.prompt.template_context)["add_generation_prompt"], false);
  EXPECT_EQ(*finish_chat_prompt(request.prompt, "<a>The answer is <e>"), "<a>The answer is ");
  EXPECT_EQ(*finish_chat_prompt(request.prompt, "<a>The answer is<e>"), "<a>The answer is");
  EXPECT_FALSE(finish_chat_prompt(request.prompt, "something else").ok());
}

TEST(TokenizeRequest, TakesTextOrMessages) {
  const auto parse = [](const std::string& body) {
    return parse_tokenize_request(body, make_context());
  };
  EXPECT_EQ(std::get<std::string>(parse(R"({"prompt": "a"})").prompt), "a");
  EXPECT_EQ(std::get<std::string>(parse(R"({"content": "a"})").prompt), "a");
  EXPECT_TRUE(parse(R"({"prompt": "a"})").add_special_tokens);
  EXPECT_FALSE(parse(chat_with(R"("n": 1)")).add_special_tokens);
  EXPECT_EQ(error_of([&] { parse("{}"); }).param(), "prompt");
  EXPECT_EQ(error_of([&] { parse_detokenize_request("{}", make_context()); }).param(), "tokens");
  EXPECT_EQ(
      error_of([&] { parse_detokenize_request(R"({"tokens": [258]})", make_context()); }).param(),
      "tokens");
}

}  // namespace
}  // namespace lamina::server
