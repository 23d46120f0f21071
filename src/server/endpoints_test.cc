// Every endpoint over HTTP: answers against golden files, refusals, headers.

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include <nlohmann/json.hpp>

#include "server/server_test_fixture.h"
#include "support/paths.h"

namespace lamina::server {
namespace {

// Puts `value` for the characters out of `set` that follow each `prefix`.
void replace_run(std::string* text,
                 std::string_view prefix,
                 std::string_view set,
                 std::string_view value) {
  for (size_t at = text->find(prefix); at != std::string::npos; at = text->find(prefix, at)) {
    at += prefix.size();
    const size_t end = std::min(text->find_first_not_of(set, at), text->size());
    text->replace(at, end - at, value);
  }
}

class EndpointsTest : public ServerTest {
 protected:
  // Ids and times differ each time; nothing else may. LAMINA_UPDATE_GOLDEN=1 rewrites the files.
  static void expect_golden(const TestReply& reply, const std::string& name) {
    std::string text = reply.body;
    replace_run(&text, "cmpl-", "0123456789abcdef", "ID");
    replace_run(&text, "\"created\":", "0123456789", "0");
    text += "\n";
    const auto path = test::fixture_path("golden/api/" + name);
    if (std::getenv("LAMINA_UPDATE_GOLDEN") != nullptr) {  // NOLINT: nobody sets it meanwhile
      std::filesystem::create_directories(path.parent_path());
      std::ofstream(path) << text;
    }
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(text, read_text_file(path, 1 << 20)) << "LAMINA_UPDATE_GOLDEN=1 rewrites it";
  }
};

TEST_F(EndpointsTest, AnswersLookAsRecorded) {
  start();
  const auto completion = [&](const std::string& name, const std::string& body) {
    expect_golden(post("/v1/completions", body), name);
  };
  const auto chat = [&](const std::string& name, const std::string& members) {
    const std::string messages = R"({"messages": [{"role": "user", "content": "hi"}])";
    expect_golden(post("/v1/chat/completions", messages + members + "}"), name);
  };
  completion("completion.json", R"({"model": "tiny", "prompt": "ab"})");
  completion("completion_many.json",
             R"({"model": "org/alias", "prompt": [[97], [98]], "n": 2, "max_tokens": 1,
                 "return_token_ids": true})");
  completion("completion_echo_logprobs.json",
             R"({"prompt": "ab", "echo": true, "logprobs": 2, "max_tokens": 1})");
  completion("completion_score.json",
             R"({"prompt": [97, 98], "echo": true, "logprobs": 0, "max_tokens": 0})");
  completion("completion_stream.sse",
             R"({"prompt": "ab", "stream": true, "stream_options": {"include_usage": true}})");
  completion("completion_echo_stream.sse",
             R"({"prompt": "ab", "stream": true, "echo": true, "logprobs": 1, "max_tokens": 1,
                 "return_token_ids": true})");
  chat("chat.json", "");
  chat("chat_logprobs.json", R"(, "logprobs": true, "top_logprobs": 1, "max_tokens": 1)");
  chat("chat_stream.sse", R"(, "stream": true, "n": 2)");
  chat("chat_usage_stream.sse",
       R"(, "stream": true, "max_tokens": 1, "return_token_ids": true, "logprobs": true,
           "stream_options": {"include_usage": true, "continuous_usage_stats": true})");
  expect_golden(get("/v1/models"), "models.json");
  expect_golden(get("/v1/models/org%2Falias"), "model.json");
  expect_golden(get("/health"), "health.json");
  expect_golden(get("/version"), "version.json");
  expect_golden(post("/tokenize", R"({"prompt": "ab", "return_token_strs": true})"),
                "tokenize.json");
  expect_golden(post("/tokenize", kChatHi), "tokenize_chat.json");
  expect_golden(post("/detokenize", R"({"tokens": [256, 104, 195, 182]})"), "detokenize.json");
}

TEST_F(EndpointsTest, EngineGetsWhatTheRequestSays) {
  start();
  complete(R"("seed": 7, "max_tokens": 3)");
  complete(R"("n": 2)");
  post("/v1/chat/completions", kChatHi);
  const auto requests = engine_.requests();
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].prompt_ids, (std::vector<int32_t>{FakeTokenizer::kBos, 'a', 'b'}));
  EXPECT_EQ(requests[0].sampling.seed, 7U);
  EXPECT_EQ(requests[0].max_tokens, 3);
  EXPECT_EQ(requests[1].n, 2);
  EXPECT_EQ(requests[1].max_tokens, 16);
  EXPECT_NE(requests[1].sampling.seed, requests[2].sampling.seed);
  EXPECT_EQ(requests[2].prompt_ids.size(), std::string("user: hi\n").size());
  EXPECT_EQ(requests[2].max_tokens, 256 - 9);  // the rest of the context
}

TEST_F(EndpointsTest, RefusesPromptsThatDoNotFit) {
  start();
  TestReply reply = post("/v1/completions", R"({"prompt": [1,1], "max_tokens": 255})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(error_of(reply)["code"], "context_length_exceeded");
  EXPECT_EQ(post("/v1/completions", R"({"prompt": [1,1], "max_tokens": 254})").status, 200);
  const std::string long_text(300, 'x');
  reply = post("/v1/chat/completions",
               R"({"messages": [{"role": "user", "content": ")" + long_text + R"("}]})");
  EXPECT_EQ(error_of(reply)["code"], "context_length_exceeded");
  EXPECT_EQ(error_of(reply)["param"], "messages");
  reply = post("/v1/completions", R"({"prompt": "", "add_special_tokens": false})");
  EXPECT_EQ(reply.status, 400);
}

TEST_F(EndpointsTest, BoundsTheSequencesOfACall) {
  config_.max_sequences = 4;
  start();
  EXPECT_EQ(complete(R"("n": 5)").status, 400);
  EXPECT_EQ(complete(R"("n": 4)").status, 200);
}

TEST_F(EndpointsTest, ErrorsOfTheEngineHaveTheirStatus) {
  start();
  const std::pair<Status, int> cases[] = {{invalid_argument("bad"), 400},
                                          {resource_exhausted("full"), 503},
                                          {unavailable("no worker"), 503},
                                          {internal_error("broken"), 500}};
  for (const auto& [status, http_status] : cases) {
    engine_.set_submit_status(status);
    TestReply reply = complete(R"("n": 1)");
    EXPECT_EQ(reply.status, http_status) << status.to_string();
    EXPECT_EQ(error_of(reply)["message"], status.message());
    EXPECT_EQ(reply.headers.contains("retry-after"), http_status == 503);
  }
  engine_.set_submit_status({});
  engine_.set_scripter([](const GenerationRequest&) {
    return FakeEngine::Script{{GenerationFailure{unavailable("worker lost")}}, false};
  });
  for (const char* stream : {"false", "true"}) {  // nothing was sent yet, so both have a status
    const TestReply reply = complete(R"("stream": )" + std::string(stream));
    EXPECT_EQ(reply.status, 503);
    EXPECT_EQ(error_of(reply)["message"], "worker lost");
  }
}

TEST_F(EndpointsTest, AFullQueueIsSaidBeforeAnyWork) {
  config_.render_chat = [](const std::string&) -> Result<std::string> {
    ADD_FAILURE() << "rendered a prompt for a full queue";
    return std::string();
  };
  start();
  engine_.set_room(0);
  TestReply reply = post("/v1/chat/completions", kChatHi);
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers["retry-after"], "1");
  EXPECT_EQ(error_of(reply)["code"], "server_overloaded");
  engine_.set_room(2);
  EXPECT_EQ(complete(R"("n": 3)").status, 503);
  EXPECT_EQ(complete(R"("n": 2)").status, 200);
}

TEST_F(EndpointsTest, TemplatesMayRefuseOrBeAbsent) {
  start();
  TestReply reply =
      post("/v1/chat/completions", R"({"messages": [{"role": "bad", "content": "hi"}]})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(error_of(reply)["message"], "chat template: no such role");
  config_.render_chat = nullptr;
  start();
  reply = post("/v1/chat/completions", kChatHi);
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(error_of(reply)["message"].get<std::string>().find("no chat template"),
            std::string::npos);
}

TEST_F(EndpointsTest, ServesIdsWithoutATokenizer) {
  engine_.set_scripter([](const GenerationRequest& request) {
    FakeEngine::Script script{say(request, 0, "hi"), false};
    for (GenerationEvent& event : script.events) std::get<GenerationDelta>(event).text.clear();
    return script;
  });
  start(nullptr);
  const TestReply reply = post("/v1/completions", R"({"prompt": [1, 2], "logprobs": 1})");
  EXPECT_EQ(reply.status, 200);
  const Json choice = Json::parse(reply.body)["choices"][0];
  EXPECT_EQ(choice["text"], "");
  EXPECT_EQ(choice["token_ids"], Json({'h', 'i'}));
  EXPECT_EQ(choice["logprobs"]["tokens"][0], "token_id:104");
  EXPECT_EQ(complete(R"("n": 1)").status, 400);
  EXPECT_EQ(post("/v1/chat/completions", kChatHi).status, 400);
  EXPECT_EQ(post("/tokenize", R"({"prompt": "a"})").status, 400);
  EXPECT_EQ(post("/detokenize", R"({"tokens": [1]})").status, 400);
}

TEST_F(EndpointsTest, UnknownPathsMethodsAndModels) {
  start();
  EXPECT_EQ(get("/nothing").status, 404);
  error_of(get("/nothing"));
  EXPECT_EQ(get("/%zz").status, 404);
  EXPECT_EQ(error_of(get("/v1/models/other"))["code"], "model_not_found");
  TestReply reply = get("/v1/completions");
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.headers["allow"], "POST, OPTIONS");
  error_of(reply);
  EXPECT_EQ(call(port(), "DELETE", "/v1/models").headers["allow"], "GET, HEAD, OPTIONS");
  EXPECT_EQ(post("/health", "{}").status, 405);
  EXPECT_EQ(get("/health?x=1").status, 200);
}

TEST_F(EndpointsTest, HeadAndOptions) {
  start();
  const TestReply head = call(port(), "HEAD", "/v1/models");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), std::to_string(get("/v1/models").body.size()));
  const TestReply options = call(port(), "OPTIONS", "/v1/completions");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "POST, OPTIONS");
}

TEST_F(EndpointsTest, HealthNamesTheReasonAndTheWorkers) {
  start();
  EngineStats stats;
  stats.workers.push_back({"10.0.0.1:7", "down", 3, 1, 2, 0, 0, 0});
  engine_.set_stats(stats);
  engine_.set_health(unavailable("attention worker 10.0.0.1:7 is down"));
  const TestReply reply = get("/health");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(error_of(reply)["message"], "attention worker 10.0.0.1:7 is down");
  EXPECT_EQ(Json::parse(reply.body)["workers"][0]["state"], "down");
}

TEST_F(EndpointsTest, KeysGuardEverythingButHealth) {
  config_.api_keys = {"secret", "other"};
  start();
  TestReply reply = get("/v1/models");
  EXPECT_EQ(reply.status, 401);
  EXPECT_EQ(reply.headers["www-authenticate"], "Bearer");
  EXPECT_EQ(error_of(reply)["code"], "invalid_api_key");
  for (const char* path : {"/metrics", "/version", "/nothing"}) EXPECT_EQ(get(path).status, 401);
  EXPECT_EQ(complete(R"("n": 1)").status, 401);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer other\r\n").status, 200);
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_TRUE(engine_.requests().empty());
}

TEST_F(EndpointsTest, RequestIdsComeBack) {
  start();
  EXPECT_EQ(get("/version", "X-Request-Id: abc-1\r\n").headers["x-request-id"], "abc-1");
  EXPECT_EQ(get("/version", "X-Request-Id: a b\r\n").headers["x-request-id"].size(), 24U);
  EXPECT_EQ(get("/version").headers["x-request-id"].size(), 24U);
}

TEST_F(EndpointsTest, CorsOnlyForListedOrigins) {
  config_.allowed_origins = {"https://a.example"};
  start();
  EXPECT_EQ(get("/version", "Origin: https://a.example\r\n").headers["access-control-allow-origin"],
            "https://a.example");
  EXPECT_FALSE(get("/version", "Origin: https://b.example\r\n")
                   .headers.contains("access-control-allow-origin"));
  EXPECT_EQ(post("/tokenize", R"({"prompt": "a"})", "Origin: https://b.example\r\n").status, 403);
}

TEST_F(EndpointsTest, MetricsCountWhatHappened) {
  start();
  complete(R"("n": 2)");
  get("/nothing");
  const TestReply reply = get("/metrics");
  EXPECT_EQ(reply.headers.at("content-type").substr(0, 25), "text/plain; version=0.0.4");
  for (const std::string& line : std::initializer_list<std::string>{
           R"(vllm:request_success_total{engine="0",model_name="tiny",finished_reason="stop"} 2)",
           R"(vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 2)",
           R"(vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 6)",
           R"(vllm:request_params_n_sum{engine="0",model_name="tiny"} 2)",
           R"(http_requests_total{handler="/v1/completions",method="POST",status="200"} 1)",
           R"(http_requests_total{handler="other",method="GET",status="404"} 1)"}) {
    EXPECT_NE(reply.body.find(line), std::string::npos) << line << "\n" << reply.body;
  }
}

}  // namespace
}  // namespace lamina::server
