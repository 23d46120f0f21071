// What strangers send: garbage, too much, too slow, too many. The server answers or closes, and
// serves the next one.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/server_test_fixture.h"

namespace lamina::server {
namespace {

class HostileTest : public ServerTest {
 protected:
  // The status of what came back; 0 if the connection was closed without a word.
  int status_of(const std::string& bytes) {
    TestClient client(port());
    client.send(bytes);
    client.shut_sending();
    const auto reply = client.read_reply();
    return reply ? reply->status : 0;
  }
  void expect_alive() { EXPECT_EQ(get("/health").status, 200); }
};

TEST_F(HostileTest, GarbageIsRefused) {
  start();
  EXPECT_EQ(status_of("\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n"), 400);  // TLS
  EXPECT_EQ(status_of("hello\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/9.9\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\r\nbad header\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST /tokenize HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST /tokenize HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400);
  EXPECT_EQ(status_of("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400);
  EXPECT_EQ(status_of("GET /health"), 0);
  EXPECT_EQ(status_of(""), 0);
  EXPECT_EQ(status_of("POST /tokenize HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}"), 0);
  expect_alive();
}

TEST_F(HostileTest, BadJsonIsRefused) {
  start();
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"}) {
    for (const std::string& body :
         {std::string("{"), std::string("[]"), std::string("\xff\xfe"), std::string(5000, '[')}) {
      const TestReply reply = post(path, body);
      EXPECT_EQ(reply.status, 400) << path;
      EXPECT_EQ(error_of(reply)["type"], "invalid_request_error");
    }
    EXPECT_EQ(post(path, "").status, 400) << path;
  }
  expect_alive();
}

TEST_F(HostileTest, BodiesAreBounded) {
  config_.max_body_bytes = 1000;
  start();
  const std::string body = R"({"prompt": ")" + std::string(1000, 'a') + R"("})";
  TestReply reply = post("/tokenize", body);
  EXPECT_EQ(reply.status, 413);
  error_of(reply);
  EXPECT_EQ(reply.headers["connection"], "close");
  TestClient chunked(port());
  chunked.send(fmt::format(
      "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
      body.size(),
      body));
  EXPECT_EQ(chunked.read_reply()->status, 413);
  TestClient patient(port());  // asks before it sends
  patient.send("POST /tokenize HTTP/1.1\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(patient.read_reply()->status, 413);
  expect_alive();
}

TEST_F(HostileTest, AllBodiesTogetherAreBounded) {
  config_.max_all_bodies_bytes = 1000;
  start();
  engine_.set_permits(0);
  const std::string body = R"({"max_tokens": 1, "prompt": "a")" + std::string(600, ' ') + "}";
  TestClient first(port());
  first.send(make_request("POST", "/v1/completions", body));
  ASSERT_TRUE(engine_.wait_for_requests(1));
  TestReply reply = post("/tokenize", body);
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers["retry-after"], "1");
  EXPECT_EQ(error_of(reply)["code"], "server_overloaded");
  EXPECT_EQ(post("/tokenize", R"({"prompt": "a"})").status, 200);
  engine_.set_permits(-1);
  EXPECT_EQ(first.read_reply()->status, 200);
  EXPECT_EQ(post("/tokenize", body).status, 200);
}

TEST_F(HostileTest, ContinueIsSaidWhereItIsAwaited) {
  start();
  TestClient client(port());
  const std::string body = R"({"prompt": "a"})";
  client.send(
      fmt::format("POST /tokenize HTTP/1.1\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
                  body.size()));
  EXPECT_EQ(client.read_head()->status, 100);
  client.send(body);
  EXPECT_EQ(client.read_reply()->status, 200);
}

TEST_F(HostileTest, HeadersAreBounded) {
  start();
  EXPECT_EQ(get("/health", "X: " + std::string(20'000, 'a') + "\r\n").status, 431);
  EXPECT_EQ(get("/health", "X: " + std::string(10'000, 'a') + "\r\n").status, 200);
  std::string many;
  for (int i = 0; i < 3000; ++i) many += fmt::format("X{}: 1\r\n", i);
  EXPECT_EQ(get("/health", many).status, 431);
}

TEST_F(HostileTest, BodiesOfStrangersAreNotRead) {
  config_.api_keys = {"k"};
  start();
  TestClient client(port());
  client.send("POST /tokenize HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_EQ(client.read_reply()->status, 401);  // although no body came
}

TEST_F(HostileTest, BodiesThatNobodyWantsAreNotRead) {
  config_.api_keys = {"k"};
  start();
  const std::string headers = "Authorization: Bearer k\r\nContent-Length: 1000000\r\n\r\n";
  for (const auto& [line, status] : {std::pair{"GET /health", 200},
                                     std::pair{"POST /health", 405},
                                     std::pair{"GET /metrics", 200},
                                     std::pair{"POST /nothing", 404},
                                     std::pair{"PUT /v1/completions", 405},
                                     std::pair{"OPTIONS /v1/completions", 204}}) {
    TestClient client(port());
    client.send(fmt::format("{} HTTP/1.1\r\n{}", line, headers));
    auto reply = client.read_reply();  // although no body came
    ASSERT_TRUE(reply) << line;
    EXPECT_EQ(reply->status, status) << line;
    EXPECT_EQ(reply->headers["connection"], "close") << line;
  }
}

// A proxy in front may delimit such a body otherwise than we would: its rest must not become a
// request.
TEST_F(HostileTest, UnknownTransferEncodingsAreRefused) {
  start();
  for (const char* headers : {"Transfer-Encoding: gzip",
                              "Transfer-Encoding: chunked, gzip",
                              "Transfer-Encoding: xchunked",
                              "Content-Length: 4\r\nTransfer-Encoding: gzip",
                              "Content-Length: 4\r\nTransfer-Encoding: chunked"}) {
    TestClient client(port());
    client.send(fmt::format(
        "POST /tokenize HTTP/1.1\r\n{}\r\n\r\n{}", headers, make_request("GET", "/version")));
    auto reply = client.read_reply();
    ASSERT_TRUE(reply) << headers;
    EXPECT_EQ(reply->status, 400) << headers;
    EXPECT_EQ(reply->headers["connection"], "close") << headers;
    EXPECT_FALSE(client.read_head()) << headers;
  }
}

TEST_F(HostileTest, ChunkExtensionsAndTrailersAreBounded) {
  start();
  for (const char* start : {"1;", "0\r\nX: "}) {
    TestClient client(port());
    client.send(fmt::format("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}{}",
                            start,
                            std::string(200'000, 'a')));
    const auto reply = client.read_reply();  // although the line has not ended
    ASSERT_TRUE(reply) << start;
    EXPECT_EQ(reply->status, 400) << start;
  }
  expect_alive();
}

TEST_F(HostileTest, ErrorsDoNotRepeatTheBody) {
  start();
  const TestReply reply = post("/tokenize", "{\"" + std::string(100'000, 'a') + "\n\"}");
  EXPECT_EQ(reply.status, 400);
  EXPECT_LT(reply.body.size(), 1000U);
}

TEST_F(HostileTest, SlowSendersAreClosed) {
  config_.header_timeout = std::chrono::milliseconds(20);
  config_.body_timeout = std::chrono::milliseconds(20);
  config_.idle_timeout = std::chrono::milliseconds(20);
  start();
  for (const char* bytes :
       {"", "GET /hea", "POST /tokenize HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"}) {
    TestClient client(port());
    client.send(bytes);
    EXPECT_TRUE(client.wait_for_close()) << bytes;
  }
  expect_alive();
}

TEST_F(HostileTest, ConnectionsAreBounded) {
  config_.max_connections = 2;
  start();
  TestClient first(port());
  TestClient second(port());
  for (TestClient* client : {&first, &second}) {
    client->send(make_request("GET", "/health"));
    EXPECT_EQ(client->read_reply()->status, 200);
  }
  TestReply reply = get("/health");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers["retry-after"], "1");
  error_of(reply);
  first.send(make_request("GET", "/health"));
  EXPECT_EQ(first.read_reply()->status, 200);
}

TEST_F(HostileTest, WrongContentTypeIsRefused) {
  start();
  EXPECT_EQ(status_of("POST /tokenize HTTP/1.1\r\nContent-Type: text/plain\r\n"
                      "Content-Length: 2\r\n\r\n{}"),
            415);
}

TEST_F(HostileTest, APortInUseIsAnError) {
  start();
  ServerConfig config = config_;
  config.port = port();
  HttpServer other(config, engine_, &tokenizer_);
  EXPECT_THROW(other.start(), Error);
}

}  // namespace
}  // namespace lamina::server
