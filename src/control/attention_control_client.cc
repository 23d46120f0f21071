#include "control/attention_control_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "control/attention_control.grpc.pb.h"
#include "control/channel.h"
#include "control/codec.h"

namespace lamina::control {
namespace {

// A connection attempt that hangs (a stopped process still accepts in the kernel) is given up after
// kConnectMs; gRPC's own default is 20 s.
constexpr int kConnectMs = 1000;
constexpr int kMaxBackoffMs = 1000;
// A cut link leaves a connection that looks alive: pings close it, so that a new one is made.
constexpr int kKeepaliveMs = 2000;

grpc::ChannelArguments channel_arguments(const ControlSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxBackoffMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Nothing from outside steers the connection: no proxy of the environment, no DNS service config,
  // no retries behind the deadlines' back, no connection shared with another client's back-off.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!security.tls.empty() && !security.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(security.tls_server_name);
  }
  return arguments;
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const ControlSecurity& security) {
  if (security.tls.empty()) return grpc::InsecureChannelCredentials();
  TlsMaterial material = load_tls(security.tls);
  return grpc::SslCredentials({.pem_root_certs = std::move(material.ca),
                               .pem_private_key = std::move(material.private_key),
                               .pem_cert_chain = std::move(material.certificate)});
}

}  // namespace

class AttentionControlClient::Impl {
 public:
  Impl(const ControlAddress& address, const ControlSecurity& security)
      : name_(address.to_string()), secret_(security.cluster_secret) {
    check_security(security, address.host, "connect to");
    stub_ = v1::AttentionControl::NewStub(grpc::CreateCustomChannel(
        name_, channel_credentials(security), channel_arguments(security)));
  }

  [[nodiscard]] const std::string& name() const { return name_; }

  // One call of the stub's method, with secret and deadline.
  template <typename Method, typename Request, typename Reply>
  Status call(Method method, const Request& request, Reply& reply, Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(grpc_deadline(timeout));
    if (!secret_.empty()) context.AddMetadata(kSecretMetadataKey, secret_);
    return from_grpc((*stub_.*method)(&context, request, &reply),
                     fmt::format("attention worker {}", name_));
  }

 private:
  const std::string name_;
  const std::string secret_;
  std::unique_ptr<v1::AttentionControl::Stub> stub_;
};

AttentionControlClient::AttentionControlClient(const ControlAddress& address,
                                               const ControlSecurity& security)
    : impl_(std::make_unique<Impl>(address, security)) {}
AttentionControlClient::~AttentionControlClient() = default;

const std::string& AttentionControlClient::name() const {
  return impl_->name();
}

Result<WorkerInfo> AttentionControlClient::describe(Duration timeout) {
  v1::DescribeReply reply;
  LAMINA_RETURN_IF_ERROR(
      impl_->call(&v1::AttentionControl::Stub::Describe, v1::DescribeRequest(), reply, timeout));
  return decode(reply);
}

Result<std::string> AttentionControlClient::configure(const SessionConfig& config,
                                                      Duration timeout) {
  LAMINA_RETURN_IF_ERROR(validate(config));
  v1::ConfigureRequest request;
  encode(config, request);
  v1::ConfigureReply reply;
  LAMINA_RETURN_IF_ERROR(
      impl_->call(&v1::AttentionControl::Stub::Configure, request, reply, timeout));
  return std::move(*reply.mutable_transport_blob());
}

Result<WorkerStats> AttentionControlClient::heartbeat(uint64_t epoch, Duration timeout) {
  v1::HeartbeatRequest request;
  request.set_epoch(epoch);
  v1::HeartbeatReply reply;
  LAMINA_RETURN_IF_ERROR(
      impl_->call(&v1::AttentionControl::Stub::Heartbeat, request, reply, timeout));
  return decode(reply);
}

Status AttentionControlClient::end_session(uint64_t epoch, Duration timeout) {
  v1::EndSessionRequest request;
  request.set_epoch(epoch);
  v1::EndSessionReply reply;
  return impl_->call(&v1::AttentionControl::Stub::EndSession, request, reply, timeout);
}

}  // namespace lamina::control
