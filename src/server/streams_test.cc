// Streams and departures over HTTP: the bytes of server-sent events, cancellation wherever a client
// leaves, slow readers, the end of the server.
#include <thread>

#include <nlohmann/json.hpp>

#include "server/server_test_fixture.h"

namespace lamina::server {
namespace {

constexpr std::string_view kChunkEnd = "\n\n\r\n";

class StreamsTest : public ServerTest {};

TEST_F(StreamsTest, HeadersAndChunksAreAsProxiesWant) {
  start();
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  auto head = client.read_head();
  ASSERT_TRUE(head);
  EXPECT_EQ(head->headers["content-type"], "text/event-stream; charset=utf-8");
  EXPECT_EQ(head->headers["cache-control"], "no-cache");
  EXPECT_EQ(head->headers["x-accel-buffering"], "no");
  EXPECT_EQ(head->headers["transfer-encoding"], "chunked");
  const std::string body = client.read_until("0\r\n\r\n");
  EXPECT_NE(body.find("data: [DONE]\n\n\r\n0\r\n\r\n"), std::string::npos) << body;
  client.send(make_request("GET", "/version"));  // The connection lives on.
  EXPECT_EQ(client.read_reply()->status, 200);
}

TEST_F(StreamsTest, EachTokenIsSentWhenItIsThere) {
  start();
  engine_.set_permits(1);
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  EXPECT_NE(client.read_until(kChunkEnd).find(R"("text":"h")"), std::string::npos);
  engine_.set_permits(2);  // Both bytes of one character: one event.
  EXPECT_NE(client.read_until(kChunkEnd).find("\"text\":\"\xC3\xB6\""), std::string::npos);
  engine_.set_permits(-1);
  EXPECT_NE(client.read_until("0\r\n\r\n").find("[DONE]"), std::string::npos);
}

TEST_F(StreamsTest, AFailureEndsInAnErrorEvent) {
  engine_.set_scripter([](const GenerationRequest& request) {
    FakeEngine::Script script{say(request, 0, "ab"), false};
    script.events.pop_back();
    script.events.emplace_back(GenerationFailure{unavailable("worker lost")});
    return script;
  });
  start();
  TestClient client(port());
  client.send(make_request("POST",
                           "/v1/chat/completions",
                           R"({"stream": true, "messages": [{"role": "user", "content": "x"}]})"));
  const TestReply reply = client.read_reply().value();
  EXPECT_EQ(reply.status, 200);
  const size_t error = reply.body.find("data: {\"error\":");
  ASSERT_NE(error, std::string::npos) << reply.body;
  EXPECT_EQ(Json::parse(reply.body.substr(error + 6))["error"]["message"], "worker lost");
  EXPECT_EQ(reply.body.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(client.wait_for_close());
}

TEST_F(StreamsTest, QuietStreamsSendComments) {
  config_.keep_alive_interval = std::chrono::milliseconds(5);
  start();
  engine_.set_permits(0);
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  EXPECT_EQ(client.read_head()->status, 200);
  client.read_until(": keep-alive\n\n");
  engine_.set_permits(-1);
  EXPECT_NE(client.read_until("0\r\n\r\n").find("[DONE]"), std::string::npos);
}

TEST_F(StreamsTest, Http10GetsAnUnchunkedStream) {
  start();
  TestClient client(port());
  std::string request = make_request("POST", "/v1/completions", kStreamForever);
  request.replace(request.find("HTTP/1.1"), 8, "HTTP/1.0");
  client.send(request);
  const auto reply = client.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_FALSE(reply->headers.contains("transfer-encoding"));
  EXPECT_EQ(reply->body.substr(reply->body.size() - 14), "data: [DONE]\n\n");
}

TEST_F(StreamsTest, LeavingAStreamCancelsIt) {
  engine_.set_scripter(endless());
  engine_.set_permits(3);  // Then it waits: nothing but the departure can end it.
  start();
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  client.read_until("data: ");
  client.close();
  EXPECT_TRUE(engine_.wait_for_cancels(1));
  EXPECT_EQ(engine_.num_running(), 0U);
}

TEST_F(StreamsTest, LeavingBeforeTheFirstTokenCancels) {
  start();
  engine_.set_permits(0);  // queued, or in prefill: the server sees no difference
  for (const char* stream : {"true", "false"}) {
    TestClient client(port());
    const size_t count = engine_.requests().size() + 1;
    client.send(make_request("POST",
                             "/v1/completions",
                             R"({"prompt": "ab", "n": 3, "stream": )" + std::string(stream) + "}"));
    ASSERT_TRUE(engine_.wait_for_requests(count));
    client.close();
    EXPECT_TRUE(engine_.wait_for_cancels(count)) << stream;
  }
}

TEST_F(StreamsTest, LeavingAnUnstreamedCallCancelsAllItsPrompts) {
  engine_.set_scripter(endless());
  engine_.set_permits(3);  // Then it waits: nothing but the departure can end it.
  start();
  TestClient client(port());
  client.send(make_request(
      "POST", "/v1/completions", R"({"prompt": ["a", "b", "c"], "n": 2, "max_tokens": 100})"));
  ASSERT_TRUE(engine_.wait_for_requests(3));
  client.close();
  EXPECT_TRUE(engine_.wait_for_cancels(3));
}

TEST_F(StreamsTest, AHalfClosedConnectionCountsAsLeft) {
  engine_.set_scripter(endless());
  engine_.set_permits(3);  // Then it waits: nothing but the departure can end it.
  start();
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", R"({"prompt": "a"})"));
  ASSERT_TRUE(engine_.wait_for_requests(1));
  client.shut_sending();
  EXPECT_TRUE(engine_.wait_for_cancels(1));
}

TEST_F(StreamsTest, OneFailedPromptEndsTheCall) {
  engine_.set_scripter([](const GenerationRequest& request) {
    if (request.prompt_ids.back() == 'b') {
      return FakeEngine::Script{{GenerationFailure{internal_error("prompt b")}}, false};
    }
    return endless()(request);
  });
  start();
  const TestReply reply = post("/v1/completions", R"({"prompt": ["a", "b"]})");
  EXPECT_EQ(reply.status, 500);
  EXPECT_TRUE(engine_.wait_for_cancels(1));
}

TEST_F(StreamsTest, ReadersThatStallAreCutOff) {
  engine_.set_scripter(endless());
  config_.max_backlog_bytes = size_t{64} << 10;
  start();
  TestClient client(port(), 4096);
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  client.read_until("data: ");
  EXPECT_TRUE(engine_.wait_for_cancels(1));  // although the connection is open
  EXPECT_TRUE(client.wait_for_close());
  EXPECT_EQ(get("/version").status, 200);
}

TEST_F(StreamsTest, WritesHaveATimeout) {
  engine_.set_scripter(endless());
  config_.max_backlog_bytes = SIZE_MAX;
  config_.write_timeout = std::chrono::milliseconds(50);
  start();
  engine_.set_permits(40'000);  // far more than socket buffers hold
  TestClient client(port(), 4096);
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  client.read_until("data: ");
  EXPECT_TRUE(engine_.wait_for_cancels(1));
  EXPECT_TRUE(client.wait_for_close());
}

TEST_F(StreamsTest, PipelinedRequestsWaitTheirTurn) {
  start();
  engine_.set_permits(0);
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", R"({"prompt": "a"})") +
              make_request("GET", "/version") + make_request("GET", "/nothing"));
  ASSERT_TRUE(engine_.wait_for_requests(1));
  client.send(make_request("GET", "/health"));
  engine_.set_permits(-1);
  for (const int status : {200, 200, 404, 200}) EXPECT_EQ(client.read_reply()->status, status);
}

TEST_F(StreamsTest, ManyClientsGetTheirOwnAnswers) {
  engine_.set_scripter([](const GenerationRequest& request) {
    const std::string text(request.prompt_ids.begin() + 1, request.prompt_ids.end());
    return FakeEngine::Script{say(request, 0, "to " + text), false};
  });
  start();
  constexpr int kNumClients = 64;
  std::vector<std::string> bodies(kNumClients);
  std::vector<std::thread> threads;
  threads.reserve(kNumClients);
  for (int i = 0; i < kNumClients; ++i) {
    threads.emplace_back([&, i] {
      const std::string stream = i % 2 == 0 ? "true" : "false";
      bodies[static_cast<size_t>(i)] =
          post("/v1/completions",
               R"({"prompt": "c)" + std::to_string(i) + R"(", "stream": )" + stream + "}")
              .body;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kNumClients; ++i) {
    const std::string& body = bodies[static_cast<size_t>(i)];
    std::string text;
    if (i % 2 == 1) {
      text = Json::parse(body)["choices"][0]["text"];
    } else {
      for (size_t at = body.find("data: {"); at != std::string::npos;
           at = body.find("data: {", at + 1)) {
        const std::string line = body.substr(at + 6, body.find("\n\n", at) - at - 6);
        text += Json::parse(line)["choices"][0]["text"].get<std::string>();
      }
    }
    EXPECT_EQ(text, "to c" + std::to_string(i)) << body;
  }
}

TEST_F(StreamsTest, StopLetsRunningRequestsFinish) {
  start();
  engine_.set_permits(1);
  TestClient client(port());
  client.send(make_request("POST", "/v1/completions", kStreamForever));
  client.read_until("data: ");
  TestClient idle(port());
  idle.send(make_request("GET", "/health"));
  EXPECT_EQ(idle.read_reply()->status, 200);
  std::thread stopper([&] { server_->stop(Deadline::after(std::chrono::seconds(60))); });
  // Draining shows on connections that are already there.
  int status = 200;
  while (status == 200) {
    idle.send(make_request("GET", "/health"));
    status = idle.read_reply()->status;
  }
  EXPECT_EQ(status, 503);
  idle.send(make_request("POST", "/v1/completions", R"({"prompt": "a"})"));
  EXPECT_EQ(idle.read_reply()->status, 503);
  EXPECT_THROW(TestClient(port()).send(""), Error);
  engine_.set_permits(-1);
  EXPECT_NE(client.read_until("0\r\n\r\n").find("[DONE]"), std::string::npos);
  stopper.join();
  EXPECT_TRUE(client.wait_for_close());
}

TEST_F(StreamsTest, StopEndsOverdueRequestsWithAnError) {
  engine_.set_permits(1);
  start();
  TestClient stream(port());
  stream.send(make_request("POST", "/v1/completions", kStreamForever));
  stream.read_until("data: ");
  TestClient whole(port());
  whole.send(make_request("POST", "/v1/completions", R"({"prompt": "a"})"));
  ASSERT_TRUE(engine_.wait_for_requests(2));
  std::thread patient([&] { server_->stop(Deadline::after(std::chrono::hours(1))); });
  server_->stop(Deadline::expired());  // the second call brings the end forward
  patient.join();
  const std::string rest = stream.read_until("0\r\n\r\n");
  EXPECT_NE(rest.find("data: {\"error\":"), std::string::npos) << rest;
  EXPECT_EQ(whole.read_reply()->status, 503);
  EXPECT_TRUE(engine_.wait_for_cancels(2));
}

}  // namespace
}  // namespace lamina::server
