#include "server/access.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "server/routes.h"

namespace lamina::server {
namespace {

ServerConfig make_config() {
  ServerConfig config;
  config.served_model_names = {"tiny"};
  config.vocab_size = 10;
  return config;
}

HttpRequest make_request(const std::string& method, const std::string& path) {
  HttpRequest request;
  request.method = method;
  request.path = path;
  request.host = "localhost:8000";
  return request;
}

int status_of(const HttpRequest& request, const ServerConfig& config) {
  const auto error = check_access(request, config);
  return error ? error->http_status() : 200;
}

TEST(Access, ComparesWholeKeys) {
  EXPECT_TRUE(matches_any_key("abc", {"x", "abc"}));
  for (const char* wrong : {"", "ab", "abcd", "abd", "abcabc"}) {
    EXPECT_FALSE(matches_any_key(wrong, {"abc"})) << wrong;
  }
  EXPECT_FALSE(matches_any_key("", {}));
}

TEST(Access, KeyGuardsAllButHealth) {
  ServerConfig config = make_config();
  config.api_keys = {"k1", "k2"};
  for (const char* path : {"/v1/models", "/metrics", "/version", "/no/such/path"}) {
    HttpRequest request = make_request("GET", path);
    EXPECT_EQ(status_of(request, config), 401) << path;
    request.authorization = "Bearer k2";
    EXPECT_EQ(status_of(request, config), 200) << path;
    request.authorization = "bearer  k1";
    EXPECT_EQ(status_of(request, config), 200) << path;
    request.authorization = "Basic k1";
    EXPECT_EQ(status_of(request, config), 401) << path;
    request.authorization = "Bearer k3";
    EXPECT_EQ(status_of(request, config), 401) << path;
  }
  EXPECT_EQ(status_of(make_request("GET", "/health"), config), 200);
}

TEST(Access, ForeignPagesCannotPost) {
  ServerConfig config = make_config();
  HttpRequest request = make_request("POST", "/v1/completions");
  EXPECT_EQ(status_of(request, config), 200);
  request.origin = "http://localhost:8000";
  EXPECT_EQ(status_of(request, config), 200);
  request.origin = "https://evil.example";
  EXPECT_EQ(status_of(request, config), 403);
  config.allowed_origins = {"https://evil.example"};
  EXPECT_EQ(status_of(request, config), 200);
}

// A name of the attacker's that leads to this server (DNS rebinding): page and Host agree then.
TEST(Access, OnlyNamesOfThisMachineAreItsOwnPages) {
  HttpRequest request = make_request("POST", "/v1/completions");
  const auto status_at = [&](const std::string& host, const ServerConfig& config) {
    request.host = host;
    request.origin = "http://" + host;
    return status_of(request, config);
  };
  for (const char* own :
       {"localhost:8000", "LOCALHOST", "127.0.0.1:8000", "10.1.2.3", "[::1]:80"}) {
    EXPECT_EQ(status_at(own, make_config()), 200) << own;
  }
  for (const char* strange :
       {"evil.example:8000", "evil.example", "", "[", "127.0.0.1.evil.example"}) {
    EXPECT_EQ(status_at(strange, make_config()), 403) << strange;
  }
  ServerConfig config = make_config();
  config.api_keys = {"k"};  // which that page does not have
  request.authorization = "Bearer k";
  EXPECT_EQ(status_at("llm.example", config), 200);
}

TEST(Access, PostsAreJson) {
  HttpRequest request = make_request("POST", "/v1/completions");
  for (const auto& [type, status] : {std::pair{"application/json", 200},
                                     std::pair{"Application/JSON ; charset=utf-8", 200},
                                     std::pair{"text/plain", 415},
                                     std::pair{"application/jsonx", 415}}) {
    request.content_type = type;
    EXPECT_EQ(status_of(request, make_config()), status) << type;
  }
}

TEST(Access, CorsIsOffUnlessTheOriginIsListed) {
  ServerConfig config = make_config();
  HttpRequest request = make_request("OPTIONS", "/v1/models");
  request.origin = "https://a.example";
  request.preflight_method = "POST";
  EXPECT_TRUE(cors_headers(request, config).empty());
  config.allowed_origins = {"https://a.example"};
  config.api_keys = {"k"};
  EXPECT_EQ(status_of(request, config), 200);  // browsers send no key with a preflight
  const auto headers = cors_headers(request, config);
  EXPECT_EQ(headers.front().second, "https://a.example");
  EXPECT_EQ(headers.size(), 6U);
  request.origin = "https://b.example";
  EXPECT_TRUE(cors_headers(request, config).empty());
  EXPECT_EQ(status_of(request, config), 401);
}

TEST(Access, RequestIdsAreHarmless) {
  EXPECT_EQ(choose_request_id("a-B.9_:", "new"), "a-B.9_:");
  for (const std::string& bad : {std::string(),
                                 std::string("a b"),
                                 std::string("a\r\nb"),
                                 std::string("\xc3\xa4"),
                                 std::string(129, 'a')}) {
    EXPECT_EQ(choose_request_id(bad, "new"), "new");
  }
}

TEST(Access, DecodesPercents) {
  EXPECT_EQ(percent_decode("/a%2Fb%41"), "/a/bA");
  for (const char* bad : {"%", "%4", "%zz", "a%00"}) EXPECT_FALSE(percent_decode(bad)) << bad;
}

TEST(Routes, KnowPathsAndModelIds) {
  ASSERT_NE(find_route("/v1/models/org/name"), nullptr);
  EXPECT_EQ(find_route("/v1/models/org/name")->endpoint, Endpoint::kModel);
  EXPECT_EQ(model_id_of("/v1/models/org/name"), "org/name");
  EXPECT_EQ(find_route("/v1/models/"), nullptr);
  EXPECT_EQ(find_route("/health/"), nullptr);
  EXPECT_EQ(find_route(""), nullptr);
}

TEST(ServerConfig, TimesArePositive) {
  for (Duration ServerConfig::* time : {&ServerConfig::idle_timeout,
                                        &ServerConfig::header_timeout,
                                        &ServerConfig::body_timeout,
                                        &ServerConfig::write_timeout,
                                        &ServerConfig::keep_alive_interval,
                                        &ServerConfig::log_interval}) {
    ServerConfig config = make_config();
    config.*time = Duration::zero();
    EXPECT_THROW(config.validate(), Error);
  }
}

TEST(ServerConfig, ListensBeyondLoopbackOnlyWithAKey) {
  for (const char* host : {"127.0.0.1", "127.8.9.1", "::1", "localhost"}) {
    ServerConfig config = make_config();
    config.host = host;
    EXPECT_NO_THROW(config.validate()) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "192.168.0.1", "example.org", "127.0.0.1.example"}) {
    ServerConfig config = make_config();
    config.host = host;
    EXPECT_THROW(config.validate(), Error) << host;
    config.insecure = true;
    EXPECT_NO_THROW(config.validate()) << host;
    config.insecure = false;
    config.api_keys = {"k"};
    EXPECT_NO_THROW(config.validate()) << host;
    config.api_keys = {""};
    EXPECT_THROW(config.validate(), Error) << host;
  }
}

}  // namespace
}  // namespace lamina::server
