// Mutual TLS over real gRPC, with throwaway certificates made by the openssl program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "control/attention_control_client.h"
#include "control/attention_control_server.h"
#include "control/control_testing.h"

namespace lamina::control {
namespace {

constexpr Duration kPatience = std::chrono::seconds(20);

class ControlTlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = std::filesystem::path(testing::TempDir()) /
             ("lamina-control-tls-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    made = make_ca("ca") && make_ca("other-ca") &&
           make_leaf("worker", "ca", "IP:127.0.0.1,DNS:worker.lamina") &&
           make_leaf("engine", "ca", "DNS:engine.lamina") &&
           make_leaf("stranger", "other-ca", "IP:127.0.0.1");
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder); }

  void SetUp() override {
    if (!made) GTEST_SKIP() << "skipped: needs the openssl program, version 3";
  }

  static ControlSecurity security(const std::string& leaf, const std::string& ca = "ca") {
    return {.tls = {.certificate = folder / (leaf + ".pem"),
                    .private_key = folder / (leaf + ".key"),
                    .ca = folder / (ca + ".pem")}};
  }

  static Status describe(const AttentionControlServer& server, const ControlSecurity& security) {
    return AttentionControlClient({.port = server.port()}, security).describe(kPatience).status();
  }

  RecordingHandler handler_;

 private:
  static bool openssl(const std::string& arguments) {
    const std::string command =
        "cd '" + folder.string() + "' && openssl req -x509 -nodes -days 2 " +
        "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 " + arguments + " 2>/dev/null";
    return std::system(command.c_str()) == 0;  // NOLINT: before any thread is started
  }
  static bool make_ca(const std::string& name) {
    return openssl("-keyout " + name + ".key -out " + name + ".pem -subj /CN=" + name);
  }
  static bool make_leaf(const std::string& name, const std::string& ca, const std::string& names) {
    return openssl("-CA " + ca + ".pem -CAkey " + ca + ".key -keyout " + name + ".key -out " +
                   name + ".pem -subj /CN=" + name + " -addext subjectAltName=" + names +
                   " -addext basicConstraints=CA:FALSE");
  }

  static inline std::filesystem::path folder;
  static inline bool made = false;
};

TEST_F(ControlTlsTest, BothEndsOfOneCaTrustEachOther) {
  const AttentionControlServer server(
      {.listen = {.host = "0.0.0.0"}, .security = security("worker")}, handler_);
  EXPECT_EQ(describe(server, security("engine")).to_string(), "OK");
}

TEST_F(ControlTlsTest, TheSecretWorksOverTls) {
  ControlSecurity worker = security("worker");
  worker.cluster_secret = "both";
  const AttentionControlServer server({.listen = {}, .security = worker}, handler_);
  EXPECT_EQ(describe(server, security("engine")).code(), StatusCode::kUnauthenticated);
  ControlSecurity engine = security("engine");
  engine.cluster_secret = "both";
  EXPECT_TRUE(describe(server, engine).ok());
}

TEST_F(ControlTlsTest, StrangersAreRefused) {
  const AttentionControlServer server({.listen = {}, .security = security("worker")}, handler_);
  EXPECT_EQ(describe(server, {}).code(), StatusCode::kUnavailable);
  // A certificate that the worker's CA did not sign.
  EXPECT_EQ(describe(server, security("stranger", "ca")).code(), StatusCode::kUnavailable);
  // A worker that the engine's CA did not sign.
  EXPECT_EQ(describe(server, security("engine", "other-ca")).code(), StatusCode::kUnavailable);
}

TEST_F(ControlTlsTest, TheWorkersNameIsChecked) {
  const AttentionControlServer server({.listen = {}, .security = security("engine")}, handler_);
  ControlSecurity engine = security("engine");
  EXPECT_EQ(describe(server, engine).code(), StatusCode::kUnavailable);
  engine.tls_server_name = "engine.lamina";
  EXPECT_EQ(describe(server, engine).to_string(), "OK");
}

TEST_F(ControlTlsTest, AKeyThatDoesNotFitItsCertificateIsRefused) {
  ControlSecurity mixed = security("worker");
  mixed.tls.private_key = security("engine").tls.private_key;
  EXPECT_THROW(AttentionControlServer({.listen = {}, .security = mixed}, handler_), Error);
}

}  // namespace
}  // namespace lamina::control
