#include <gmock/gmock.h>
#include <google/protobuf/message_lite.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "base/rng.h"
#include "control/address.h"
#include "control/attention_control.pb.h"
#include "control/codec.h"
#include "control/control_testing.h"
#include "control/security.h"
#include "control/session_lease.h"

namespace lamina::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

template <typename Message, typename Value>
auto through_bytes(const Value& value) {
  Message message;
  encode(value, message);
  Message received;
  EXPECT_TRUE(received.ParseFromString(message.SerializeAsString()));
  return decode(received);
}

TEST(Codec, EveryFieldSurvives) {
  EXPECT_EQ(*through_bytes<v1::ConfigureRequest>(make_session_config()), make_session_config());
  EXPECT_EQ(*through_bytes<v1::DescribeReply>(make_worker_info()), make_worker_info());
  EXPECT_EQ(*through_bytes<v1::HeartbeatReply>(make_worker_stats()), make_worker_stats());
}

TEST(Codec, EveryEnumeratorSurvives) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    SessionConfig config = make_session_config();
    config.kv_dtype = config.out_dtype = config.wire_dtype = dtype;
    EXPECT_EQ(*through_bytes<v1::ConfigureRequest>(config), config);
  }
  for (const DType dtype : {DType::kI8, DType::kF8E4M3}) {  // of a cache alone
    SessionConfig config = make_session_config();
    config.kv_dtype = dtype;
    EXPECT_EQ(*through_bytes<v1::ConfigureRequest>(config), config);
  }
  for (const TransportKind kind : {TransportKind::kLoopback,
                                   TransportKind::kShm,
                                   TransportKind::kTcp,
                                   TransportKind::kCudaP2p,
                                   TransportKind::kNccl,
                                   TransportKind::kRdma}) {
    SessionConfig config = make_session_config();
    config.transport = kind;
    EXPECT_EQ(*through_bytes<v1::ConfigureRequest>(config), config);
  }
  for (const WorkerState state :
       {WorkerState::kIdle, WorkerState::kStarting, WorkerState::kServing, WorkerState::kFailed}) {
    WorkerStats stats = make_worker_stats();
    stats.state = state;
    EXPECT_EQ(*through_bytes<v1::HeartbeatReply>(stats), stats);
  }
}

TEST(Codec, RefusesAnotherProtocolVersion) {
  v1::ConfigureRequest request;
  encode(make_session_config(), request);
  request.set_protocol_version(kProtocolVersion + 1);
  EXPECT_EQ(decode(request).status().code(), StatusCode::kFailedPrecondition);
  v1::DescribeReply reply;
  encode(make_worker_info(), reply);
  reply.set_protocol_version(0);
  EXPECT_EQ(decode(reply).status().code(), StatusCode::kFailedPrecondition);
}

TEST(Codec, RefusesUnknownEnumeratorsAndImpossibleNumbers) {
  v1::ConfigureRequest request;
  encode(make_session_config(), request);
  request.set_kv_dtype(static_cast<v1::DataType>(99));
  EXPECT_EQ(decode(request).status().code(), StatusCode::kInvalidArgument);
  encode(make_session_config(), request);
  request.set_transport(static_cast<v1::Transport>(-1));
  EXPECT_EQ(decode(request).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(decode(v1::ConfigureRequest()).status().code(), StatusCode::kFailedPrecondition);

  WorkerStats stats = make_worker_stats();
  stats.num_blocks_used = stats.num_blocks + 1;
  EXPECT_EQ(through_bytes<v1::HeartbeatReply>(stats).status().code(), StatusCode::kDataLoss);
  stats = make_worker_stats();
  stats.wait_seconds = std::nan("");
  EXPECT_EQ(through_bytes<v1::HeartbeatReply>(stats).status().code(), StatusCode::kDataLoss);
  v1::HeartbeatReply reply;
  encode(make_worker_stats(), reply);
  reply.set_state(static_cast<v1::State>(1000));
  EXPECT_EQ(decode(reply).status().code(), StatusCode::kDataLoss);
}

TEST(Codec, BoundsWhatAWorkerSaysOfItself) {
  WorkerInfo info = make_worker_info();
  info.hostname.assign(257, 'x');
  EXPECT_EQ(through_bytes<v1::DescribeReply>(info).status().code(), StatusCode::kDataLoss);
  WorkerStats stats = make_worker_stats();
  stats.failure.assign(100'000, 'x');
  EXPECT_EQ(through_bytes<v1::HeartbeatReply>(stats).value_or_throw().failure.size(), 1024U);
}

TEST(Codec, DamagedBytesGiveAValidConfigOrAnError) {
  v1::ConfigureRequest request;
  encode(make_session_config(), request);
  const std::string good = request.SerializeAsString();
  const uint64_t seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  int num_refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good.substr(0, good.size() - rng.next_below(2) * rng.next_below(40));
    for (uint64_t flips = rng.next_below(4); flips > 0; --flips) {
      bytes[rng.next_below(bytes.size())] = static_cast<char>(rng.next_below(256));
    }
    if (!request.ParseFromString(bytes)) continue;
    const Result<SessionConfig> config = decode(request);
    if (config.ok()) {
      ASSERT_TRUE(validate(*config).ok());
    } else {
      ++num_refused;
    }
  }
  EXPECT_GT(num_refused, 500);
}

TEST(Codec, StatusCodesMapOneToOne) {
  EXPECT_TRUE(to_grpc(Status()).ok());
  EXPECT_TRUE(from_grpc(grpc::Status::OK, "x").ok());
  for (int code = 1; code <= static_cast<int>(StatusCode::kUnauthenticated); ++code) {
    const Status status(static_cast<StatusCode>(code), "message");
    const Status back = from_grpc(to_grpc(status), "there");
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(back.message(), "there: message");
  }
  EXPECT_EQ(from_grpc({grpc::DO_NOT_USE, "odd"}, "x").code(), StatusCode::kUnknown);
  EXPECT_LE(to_grpc(internal_error(std::string(100'000, 'x'))).error_message().size(), 1024U);
}

TEST(SessionConfig, EachBadFieldIsNamed) {
  const struct {
    const char* field;
    void (*spoil)(SessionConfig&);
  } cases[] = {
      {"epoch", [](SessionConfig& c) { c.epoch = 0; }},
      {"name", [](SessionConfig& c) { c.engine_name.assign(257, 'x'); }},
      {"num_layers", [](SessionConfig& c) { c.num_layers = 0; }},
      {"num_layers", [](SessionConfig& c) { c.num_layers = 3; }},
      {"num_layers", [](SessionConfig& c) { c.num_layers = 1 << 20; }},
      {"model_num_kv_heads", [](SessionConfig& c) { c.model_num_kv_heads = -1; }},
      {"kv_head_begin", [](SessionConfig& c) { c.parts[1].kv_head_begin = -1; }},
      {"kv_head_end", [](SessionConfig& c) { c.parts[1].kv_head_end = c.parts[1].kv_head_begin; }},
      {"kv_head_end", [](SessionConfig& c) { c.parts[1].kv_head_end = 6; }},
      {"num_heads", [](SessionConfig& c) { c.parts[1].num_heads = 0; }},
      {"heads do not divide", [](SessionConfig& c) { c.parts[1].num_heads = 10; }},
      {"head_dim", [](SessionConfig& c) { c.head_dim = 0; }},
      {"block_size", [](SessionConfig& c) { c.block_size = 0; }},
      {"num_blocks", [](SessionConfig& c) { c.num_blocks = -5; }},
      {"element type", [](SessionConfig& c) { c.kv_dtype = DType::kI32; }},
      {"element type", [](SessionConfig& c) { c.wire_dtype = DType::kI8; }},
      {"element type", [](SessionConfig& c) { c.out_dtype = DType::kF8E4M3; }},
      {"element type", [](SessionConfig& c) { c.wire_dtype = DType::kU8; }},
      {"element type", [](SessionConfig& c) { c.out_dtype = DType::kI32; }},
      {"max_tokens", [](SessionConfig& c) { c.max_tokens = INT32_MAX; }},
      {"block_begin", [](SessionConfig& c) { c.parts[0].block_begin = -1; }},
      {"block_end", [](SessionConfig& c) { c.parts[0].block_end = 1001; }},
      {"block_end", [](SessionConfig& c) { c.parts[0].block_end = c.parts[0].block_begin; }},
      {"num_micro_batches", [](SessionConfig& c) { c.num_micro_batches = 0; }},
      {"num_micro_batches", [](SessionConfig& c) { c.num_micro_batches = 1 << 20; }},
      {"max_sequences", [](SessionConfig& c) { c.max_sequences = 0; }},
      {"max_blocks_per_sequence", [](SessionConfig& c) { c.max_blocks_per_sequence = 0; }},
      {"scale",
       [](SessionConfig& c) {
         c.parts[1].layers[0].scale = std::numeric_limits<float>::infinity();
       }},
      {"value_dim", [](SessionConfig& c) { c.value_dim = 0; }},
      {"value_dim",
       [](SessionConfig& c) {
         c.latent = true;
         c.value_dim = 65;
       }},
      {"number of parts", [](SessionConfig& c) { c.parts.clear(); }},
      {"number of parts", [](SessionConfig& c) { c.parts.resize(65); }},
      {"kv_head_begin", [](SessionConfig& c) { std::swap(c.parts[0], c.parts[1]); }},
      {"soft cap", [](SessionConfig& c) { c.parts[1].layers[1].soft_cap = 0.0F; }},
      {"8 alibi_slopes for 9 heads",
       [](SessionConfig& c) { c.parts[1].layers[0].alibi_slopes.pop_back(); }},
      {"sinks", [](SessionConfig& c) { c.parts[0].layers[0].sinks[1] = NAN; }},
      {"window", [](SessionConfig& c) { c.parts[1].layers[1].window = 0; }},
      {"transport blob",
       [](SessionConfig& c) { c.parts[1].transport_blobs[0].assign(65537, 'x'); }},
      {"lease_ms", [](SessionConfig& c) { c.lease_ms = 0; }},
  };
  EXPECT_TRUE(validate(make_session_config()).ok());
  for (const auto& test_case : cases) {
    SessionConfig config = make_session_config();
    test_case.spoil(config);
    const Status status = validate(config);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << test_case.field;
    EXPECT_THAT(status.message(), HasSubstr(test_case.field));
  }
}

TEST(SessionConfig, SlotGeometryCountsThisWorkersHeads) {
  const SessionConfig config = make_session_config();
  const wire::SlotGeometry geometry = slot_geometry(config, config.parts[1]);
  EXPECT_EQ(geometry.num_kv_heads, 3U);
  EXPECT_EQ(geometry.num_heads, 9U);
  EXPECT_EQ(geometry.head_dim, 64U);
  EXPECT_EQ(geometry.max_tokens, 512U);
  EXPECT_EQ(geometry.max_sequences, 24U);
  EXPECT_EQ(geometry.num_blocks, 1000U);
  EXPECT_EQ(geometry.dtype, DType::kF32);
  EXPECT_EQ(geometry.out_dtype, DType::kBF16);
}

class SessionLeaseTest : public testing::Test {
 protected:
  static SessionLease::Holder holder(uint64_t engine_id, uint64_t epoch) {
    return {.engine_id = engine_id,
            .engine_name = "engine-" + std::to_string(engine_id),
            .epoch = epoch};
  }
  // As the server opens a session.
  Status open(uint64_t engine_id, uint64_t epoch) {
    LAMINA_RETURN_IF_ERROR(lease_.admit(holder(engine_id, epoch)));
    lease_.clear();
    lease_.start(holder(engine_id, epoch), seconds(5));
    return {};
  }

  ManualClock clock_;
  SessionLease lease_{clock_};
};

TEST_F(SessionLeaseTest, EpochsOfAnEngineOnlyGrow) {
  EXPECT_TRUE(open(1, 5).ok());
  EXPECT_EQ(open(1, 5).code(), StatusCode::kAborted);
  EXPECT_EQ(open(1, 4).code(), StatusCode::kAborted);
  EXPECT_EQ(lease_.live_epoch(), 5U);
  EXPECT_TRUE(open(1, 6).ok());
  EXPECT_EQ(lease_.live_epoch(), 6U);
  lease_.clear();
  EXPECT_EQ(open(1, 6).code(), StatusCode::kAborted);  // also without a live session
  EXPECT_TRUE(open(2, 1).ok());                        // another engine counts for itself
}

TEST_F(SessionLeaseTest, AnotherEnginesLiveLeaseRefusesAndNamesIt) {
  ASSERT_TRUE(open(1, 1).ok());
  const Status status = open(2, 9);
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(status.message(), HasSubstr("engine-1"));
  clock_.advance(seconds(5));
  EXPECT_TRUE(open(2, 9).ok());  // the refusal did not use the epoch up
}

TEST_F(SessionLeaseTest, HeartbeatsKeepTheLease) {
  ASSERT_TRUE(open(1, 1).ok());
  for (int i = 0; i < 10; ++i) {
    clock_.advance(milliseconds(4999));
    EXPECT_FALSE(lease_.has_expired());
    EXPECT_TRUE(lease_.renew(1).ok());
  }
  clock_.advance(seconds(5));
  EXPECT_TRUE(lease_.has_expired());
  EXPECT_EQ(lease_.live_epoch(), 0U);
  EXPECT_EQ(lease_.renew(1).code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(lease_.has_expired());  // a late heartbeat brings nothing back
  EXPECT_EQ(lease_.clear(), 1U);
  EXPECT_FALSE(lease_.has_expired());
  EXPECT_EQ(lease_.clear(), std::nullopt);
}

TEST_F(SessionLeaseTest, CheckRenewsNothing) {
  ASSERT_TRUE(open(1, 1).ok());
  clock_.advance(seconds(4));
  EXPECT_TRUE(lease_.check(1).ok());
  clock_.advance(seconds(1));
  EXPECT_EQ(lease_.check(1).code(), StatusCode::kFailedPrecondition);
}

TEST_F(SessionLeaseTest, OtherEpochsAreAborted) {
  EXPECT_EQ(lease_.renew(1).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(open(1, 7).ok());
  EXPECT_EQ(lease_.renew(6).code(), StatusCode::kAborted);
  EXPECT_EQ(lease_.check(8).code(), StatusCode::kAborted);
}

TEST_F(SessionLeaseTest, MemoryOfEnginesIsBounded) {
  for (uint64_t engine = 1; engine <= 1000; ++engine) {
    ASSERT_TRUE(open(engine, 1).ok());
    lease_.clear();
  }
  EXPECT_EQ(open(1000, 1).code(), StatusCode::kAborted);
  EXPECT_TRUE(open(1, 1).ok());  // long forgotten
}

TEST(ControlAddress, ReadsWhatUsersWrite) {
  EXPECT_EQ(*parse_control_address("gpu-box_7.example:7000"),
            (ControlAddress{.host = "gpu-box_7.example", .port = 7000}));
  EXPECT_EQ(*parse_control_address("0.0.0.0:0"), (ControlAddress{.host = "0.0.0.0", .port = 0}));
  EXPECT_EQ(*parse_control_address("[::1]:65535"), (ControlAddress{.host = "::1", .port = 65535}));
  EXPECT_EQ(parse_control_address("[fe80::1]:80")->to_string(), "[fe80::1]:80");
  EXPECT_EQ(parse_control_address("localhost:80")->to_string(), "localhost:80");
}

TEST(ControlAddress, RefusesTheRest) {
  for (const char* text : {"",
                           ":",
                           "host",
                           "host:",
                           ":80",
                           "host:65536",
                           "host:-1",
                           "host:8 0",
                           "host:+80",
                           "::1:80",
                           "[::1]",
                           "[]:80",
                           "[host]:80",
                           "unix:///tmp/x:80",
                           "a b:80",
                           "dns:///evil:80"}) {
    EXPECT_EQ(parse_control_address(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ControlSecurity, NeedsASecretOrTlsBeyondLoopback) {
  EXPECT_NO_THROW(check_security({}, "127.0.0.1", "listen on"));
  try {
    check_security({}, "0.0.0.0", "listen on");
    ADD_FAILURE() << "nothing thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    EXPECT_STREQ(error.what(), "refusing to listen on 0.0.0.0: set --cluster-secret or --tls-*");
  }
}

TEST(ControlSecurity, WarnsOfAPlainSecretBetweenMachinesAndNeverPrintsIt) {
  testing::internal::CaptureStderr();
  check_security({.cluster_secret = "swordfish"}, "10.0.0.1", "listen on");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("unencrypted"));
  EXPECT_THAT(log, Not(HasSubstr("swordfish")));
  testing::internal::CaptureStderr();
  check_security({.cluster_secret = "swordfish"}, "127.0.0.1", "listen on");
  check_security({.cluster_secret = "swordfish", .tls = {.certificate = "a"}}, "::", "listen on");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(ControlSecurity, BoundsTheSecret) {
  EXPECT_NO_THROW(check_security({.cluster_secret = std::string(1024, 'x')}, "::1", "listen on"));
  EXPECT_THROW(check_security({.cluster_secret = std::string(1025, 'x')}, "::1", "listen on"),
               Error);
}

TEST(ControlSecurity, TlsNeedsThreePemFiles) {
  EXPECT_THROW(load_tls({.certificate = "only.pem"}), Error);
  EXPECT_THROW(load_tls({.certificate = "no", .private_key = "such", .ca = "file"}), Error);
  const std::string path = testing::TempDir() + "lamina-control-not.pem";
  std::ofstream(path) << "not PEM";
  EXPECT_THROW(load_tls({.certificate = path, .private_key = path, .ca = path}), Error);
}

TEST(ControlSecurity, SecretsCompareExactly) {
  EXPECT_TRUE(secrets_equal("", ""));
  EXPECT_TRUE(secrets_equal(std::string_view("a\0b", 3), std::string_view("a\0b", 3)));
  EXPECT_FALSE(secrets_equal(std::string_view("a\0b", 3), std::string_view("a\0c", 3)));
  EXPECT_FALSE(secrets_equal("secret", "secre"));
  EXPECT_FALSE(secrets_equal("secret", "Secret"));
  EXPECT_FALSE(secrets_equal("secret", ""));
}

}  // namespace
}  // namespace lamina::control
