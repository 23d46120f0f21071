// Client and server over real gRPC on loopback.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "base/rng.h"
#include "control/attention_control.grpc.pb.h"
#include "control/attention_control_client.h"
#include "control/attention_control_server.h"
#include "control/control_testing.h"
#include "control/tcp_relay.h"

namespace lamina::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Ends a test that would hang; no test waits it out.
constexpr Duration kPatience = seconds(20);

AttentionControlServerConfig loopback(ControlSecurity security = {}) {
  return {.listen = {.host = "127.0.0.1", .port = 0}, .security = std::move(security)};
}

class ControlNetTest : public testing::Test {
 protected:
  ManualClock clock_;
  RecordingHandler handler_;
  AttentionControlServer server_{loopback(), handler_, clock_};
  AttentionControlClient client_{{.port = server_.port()}, {}};
};

TEST_F(ControlNetTest, EveryStructArrivesAsItWasSent) {
  WorkerInfo info = make_worker_info();
  info.incarnation = server_.incarnation();
  EXPECT_EQ(client_.describe(kPatience).value_or_throw(), info);

  const SessionConfig config = make_session_config(3);
  EXPECT_EQ(client_.configure(config, kPatience).value_or_throw(),
            std::vector<std::string>(4, std::string("worker\0blob", 11)));
  EXPECT_THAT(handler_.configs(), ElementsAre(config));
  EXPECT_EQ(client_.describe(kPatience).value_or_throw().session_epoch, 3U);

  WorkerStats stats = make_worker_stats();
  stats.incarnation = server_.incarnation();
  stats.epoch = 3;
  EXPECT_EQ(client_.heartbeat(3, kPatience).value_or_throw(), stats);

  EXPECT_TRUE(client_.end_session(3, kPatience).ok());
  EXPECT_EQ(client_.describe(kPatience).value_or_throw().session_epoch, 0U);
  EXPECT_THAT(handler_.log(), ElementsAre("configure 3", "end 3: requested by the engine"));
}

TEST_F(ControlNetTest, SessionsFollowTheEpochRules) {
  const auto configure = [&](uint64_t epoch, uint64_t engine_id) {
    return client_.configure(make_session_config(epoch, engine_id), kPatience).status().code();
  };
  EXPECT_EQ(client_.heartbeat(1, kPatience).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_.end_session(1, kPatience).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(configure(2, 77), StatusCode::kOk);
  EXPECT_EQ(configure(2, 77), StatusCode::kAborted);
  EXPECT_EQ(configure(1, 77), StatusCode::kAborted);
  const Status refused = client_.configure(make_session_config(9, 88), kPatience).status();
  EXPECT_EQ(refused.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(refused.message(), HasSubstr("engine-77"));
  EXPECT_THAT(refused.message(), HasSubstr(client_.name()));
  EXPECT_EQ(client_.heartbeat(1, kPatience).status().code(), StatusCode::kAborted);
  EXPECT_EQ(client_.end_session(1, kPatience).code(), StatusCode::kAborted);
  EXPECT_EQ(configure(5, 77), StatusCode::kOk);
  EXPECT_EQ(client_.heartbeat(2, kPatience).status().code(), StatusCode::kAborted);
  EXPECT_TRUE(client_.heartbeat(5, kPatience).ok());
  EXPECT_THAT(handler_.log(),
              ElementsAre("configure 2", "end 2: replaced by a newer session", "configure 5"));
}

TEST_F(ControlNetTest, TheHandlerHearsThatTheLeaseRanOut) {
  ASSERT_TRUE(client_.configure(make_session_config(1), kPatience).ok());
  clock_.advance(seconds(59));
  ASSERT_TRUE(client_.heartbeat(1, kPatience).ok());
  clock_.advance(seconds(59));
  ASSERT_TRUE(client_.heartbeat(1, kPatience).ok());
  clock_.advance(seconds(60));
  EXPECT_EQ(client_.heartbeat(1, kPatience).status().code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(handler_.wait_for_log(2, kPatience));
  EXPECT_THAT(handler_.log(), ElementsAre("configure 1", "end 1: the engine's lease ran out"));
  // The log is written from within the ending of the session, during which the worker says "try
  // again".
  const Deadline deadline = Deadline::after(kPatience);
  Status opened;
  do {
    opened = client_.configure(make_session_config(1, 88), kPatience).status();
  } while (opened.code() == StatusCode::kUnavailable && !deadline.has_passed());
  EXPECT_TRUE(opened.ok()) << opened.message();
}

TEST_F(ControlNetTest, AFailedConfigureLeavesNoSession) {
  handler_.set_configure_hook(
      [] { throw Error(StatusCode::kResourceExhausted, "9 GiB of KV do not fit"); });
  const Status status = client_.configure(make_session_config(1), kPatience).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("9 GiB of KV do not fit"));
  handler_.set_configure_hook([] { throw std::runtime_error("unforeseen"); });
  EXPECT_EQ(client_.configure(make_session_config(2), kPatience).status().code(),
            StatusCode::kInternal);
  EXPECT_EQ(client_.heartbeat(2, kPatience).status().code(), StatusCode::kFailedPrecondition);
  handler_.set_configure_hook(nullptr);
  EXPECT_TRUE(client_.configure(make_session_config(3, 88), kPatience).ok());
}

TEST_F(ControlNetTest, AConfigureThatHangsBlocksOnlySessions) {
  std::promise<void> entered;
  std::promise<void> release;
  handler_.set_configure_hook([&] {
    entered.set_value();
    release.get_future().wait();
  });
  auto opened = std::async(std::launch::async, [&] {
    return client_.configure(make_session_config(1), kPatience).status();
  });
  entered.get_future().wait();
  EXPECT_TRUE(client_.describe(kPatience).ok());
  EXPECT_EQ(client_.configure(make_session_config(2), kPatience).status().code(),
            StatusCode::kUnavailable);
  EXPECT_EQ(client_.end_session(1, kPatience).code(), StatusCode::kUnavailable);
  release.set_value();
  EXPECT_TRUE(opened.get().ok());
  EXPECT_TRUE(client_.heartbeat(1, kPatience).ok());
}

TEST_F(ControlNetTest, TheClientSendsNoBadConfig) {
  SessionConfig config = make_session_config();
  config.head_dim = 0;
  EXPECT_EQ(client_.configure(config, kPatience).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(handler_.log().empty());
}

TEST_F(ControlNetTest, StopEndsTheSessionAndTheCalls) {
  ASSERT_TRUE(client_.configure(make_session_config(1), kPatience).ok());
  server_.stop(seconds(1));
  server_.stop(seconds(1));
  EXPECT_THAT(handler_.log(), ElementsAre("configure 1", "end 1: the worker is stopping"));
  EXPECT_EQ(client_.describe(kPatience).status().code(), StatusCode::kUnavailable);
}

TEST_F(ControlNetTest, APortInUseIsRefused) {
  try {
    const AttentionControlServer second({.listen = {.port = server_.port()}, .security = {}},
                                        handler_);
    ADD_FAILURE() << "two servers listen on port " << server_.port();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kUnavailable);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(server_.port())));
  }
}

TEST_F(ControlNetTest, ListeningBeyondLoopbackNeedsSecurity) {
  EXPECT_THROW(AttentionControlServer({.listen = {.host = "0.0.0.0"}, .security = {}}, handler_),
               Error);
  EXPECT_THROW(AttentionControlClient({.host = "192.0.2.1", .port = 1}, {}), Error);
}

// One call with bytes of our own choice.
Status raw_call(uint16_t port, const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  auto call = stub.PrepareUnaryCall(
      &context, "/lamina.control.v1.AttentionControl/" + method, request, &queue);
  call->StartCall();
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->Finish(&reply, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return {status.ok() ? StatusCode::kOk : static_cast<StatusCode>(status.error_code()),
          status.error_message()};
}

TEST_F(ControlNetTest, OversizedMessagesAreRefused) {
  v1::ConfigureRequest request;
  request.add_parts()->add_transport_blobs(std::string(size_t{2} << 20, 'x'));
  EXPECT_EQ(raw_call(server_.port(), "Configure", request.SerializeAsString()).code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(client_.describe(kPatience).ok());
}

TEST_F(ControlNetTest, MalformedMessagesAreRefused) {
  const uint64_t seed = 20240607;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int i = 0; i < 30; ++i) {
    std::string bytes(1 + rng.next_below(200), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.next_below(256));
    EXPECT_NE(raw_call(server_.port(), "Configure", bytes).code(), StatusCode::kOk);
    EXPECT_NE(raw_call(server_.port(), "Heartbeat", bytes).code(), StatusCode::kOk);
  }
  EXPECT_EQ(raw_call(server_.port(), "NoSuchMethod", "").code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(handler_.log().empty());
  EXPECT_TRUE(client_.describe(kPatience).ok());
}

TEST_F(ControlNetTest, GarbageOnTheSocketHurtsNobody) {
  const FileHandle connection = connect_to_loopback(server_.port());
  const std::string garbage = "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + std::string(5000, '\xEE');
  EXPECT_GT(send(connection.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
  EXPECT_TRUE(client_.describe(kPatience).ok());
}

// True if the peer closes the connection before the server's keepalive would (30 s), whatever it
// says before.
bool is_closed_by_peer(const FileHandle& connection) {
  const timeval patience{.tv_sec = 8, .tv_usec = 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  char bytes[1024];
  ssize_t count = 1;
  for (const auto end = Deadline::after(seconds(8)); count > 0 && !end.has_passed();) {
    count = recv(connection.get(), bytes, sizeof(bytes), 0);
  }
  return count == 0 || (count < 0 && errno == ECONNRESET);
}

TEST(ControlServer, ConnectionsWithoutACallAreClosed) {
  RecordingHandler handler;
  AttentionControlServerConfig config = loopback();
  config.handshake_timeout = milliseconds(200);
  config.idle_timeout = milliseconds(200);
  const AttentionControlServer server(config, handler);
  EXPECT_TRUE(is_closed_by_peer(connect_to_loopback(server.port())));
  const auto idle = grpc::CreateChannel("127.0.0.1:" + std::to_string(server.port()),
                                        grpc::InsecureChannelCredentials());
  const auto patience = std::chrono::system_clock::now() + kPatience;
  ASSERT_TRUE(idle->WaitForConnected(patience));
  EXPECT_TRUE(idle->WaitForStateChange(GRPC_CHANNEL_READY, patience));
}

TEST(ControlClient, EveryCallEndsByItsDeadline) {
  uint16_t port = 0;
  const FileHandle listener = listen_on_loopback(port);
  AttentionControlClient client({.port = port}, {});
  EXPECT_EQ(client.describe(milliseconds(100)).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client.heartbeat(1, milliseconds(100)).status().code(), StatusCode::kDeadlineExceeded);
}

TEST_F(ControlNetTest, AConnectionThatDiedInSilenceIsReplaced) {
  TcpRelay relay(server_.port());
  AttentionControlClient client({.port = relay.port()}, {});
  EXPECT_TRUE(client.describe(kPatience).ok());
  relay.cut();
  EXPECT_EQ(client.describe(milliseconds(100)).status().code(), StatusCode::kDeadlineExceeded);
  relay.mend();
  EXPECT_TRUE(client.describe(kPatience).ok());
}

TEST(ControlClient, NobodyListeningIsUnavailable) {
  uint16_t port = 0;
  {
    const FileHandle listener = listen_on_loopback(port);
  }
  AttentionControlClient client({.port = port}, {});
  const Status status = client.describe(kPatience).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(client.name()));
}

TEST(ControlSecret, EveryCallNeedsIt) {
  const std::string secret("pass\0\xFF\n phrase", 14);
  RecordingHandler handler;
  testing::internal::CaptureStderr();
  {
    AttentionControlServer server(loopback({.cluster_secret = secret}), handler);
    const ControlAddress address{.port = server.port()};
    for (const std::string& wrong :
         {std::string(), std::string("guess"), secret.substr(0, 13), secret + "x"}) {
      AttentionControlClient client(address, {.cluster_secret = wrong});
      EXPECT_EQ(client.describe(kPatience).status().code(), StatusCode::kUnauthenticated);
      EXPECT_EQ(client.configure(make_session_config(), kPatience).status().code(),
                StatusCode::kUnauthenticated);
      EXPECT_EQ(client.heartbeat(1, kPatience).status().code(), StatusCode::kUnauthenticated);
      EXPECT_EQ(client.end_session(1, kPatience).code(), StatusCode::kUnauthenticated);
    }
    EXPECT_TRUE(handler.log().empty());
    AttentionControlClient client(address, {.cluster_secret = secret});
    EXPECT_TRUE(client.describe(kPatience).ok());
    EXPECT_TRUE(client.configure(make_session_config(), kPatience).ok());
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), Not(HasSubstr("phrase")));
}

}  // namespace
}  // namespace lamina::control
