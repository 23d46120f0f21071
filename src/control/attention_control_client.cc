#include "control/attention_control_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <mutex>

#include "control/attention_control.grpc.pb.h"
#include "control/channel.h"
#include "control/codec.h"

namespace lamina::control {
namespace {

// A connection attempt that hangs (a stopped process still accepts in the kernel) is given up after
// kConnectMs; gRPC's own default is 20 s.
constexpr int kConnectMs = 1000;
// A cut link leaves a connection that looks alive: pings and TCP_USER_TIMEOUT, which gRPC sets from
// them, close it on this side.
constexpr int kKeepaliveMs = 2000;

grpc::ChannelArguments channel_arguments(const ControlSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);  // also the limit of an attempt
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Nothing from outside steers the connection: no proxy of the environment, no DNS service config,
  // no retries behind the deadlines' back, no back-off inherited from an earlier channel.
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
    route_grpc_log();
    check_security(security, address.host, "connect to");
    credentials_ = channel_credentials(security);
    arguments_ = channel_arguments(security);
  }

  [[nodiscard]] const std::string& name() const { return name_; }

  // One call of the stub's method, with secret and deadline.
  template <typename Method, typename Request, typename Reply>
  Status call(Method method, const Request& request, Reply& reply, Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(grpc_deadline(timeout));
    if (!secret_.empty()) context.AddMetadata(kSecretMetadataKey, secret_);
    const std::shared_ptr<Stub> stub = connected_stub();
    const grpc::Status status = ((*stub).*method)(&context, request, &reply);
    const int code = status.error_code();
    if (code == grpc::UNAVAILABLE || code == grpc::DEADLINE_EXCEEDED) drop(stub);
    return from_grpc(status, fmt::format("attention worker {}", name_));
  }

 private:
  using Stub = v1::AttentionControl::Stub;

  // A channel whose call found no worker is replaced rather than left to reconnect. Between
  // blocking calls nobody polls its socket (gRPC looks once in 5 s), so its attempts would time out
  // unseen. A new channel connects during the call that needs it.
  std::shared_ptr<Stub> connected_stub() {
    const std::lock_guard lock(mutex_);
    if (stub_ == nullptr) {
      stub_ =
          v1::AttentionControl::NewStub(grpc::CreateCustomChannel(name_, credentials_, arguments_));
    }
    return stub_;
  }
  void drop(const std::shared_ptr<Stub>& stub) {
    const std::lock_guard lock(mutex_);
    if (stub_ == stub) stub_.reset();  // unless another thread did, and connected again
  }

  const std::string name_;
  const std::string secret_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  grpc::ChannelArguments arguments_;
  std::mutex mutex_;
  std::shared_ptr<Stub> stub_;  // shared with the calls under way
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

Result<std::vector<std::string>> AttentionControlClient::configure(const SessionConfig& config,
                                                                   Duration timeout) {
  LAMINA_RETURN_IF_ERROR(validate(config));
  v1::ConfigureRequest request;
  encode(config, request);
  v1::ConfigureReply reply;
  LAMINA_RETURN_IF_ERROR(
      impl_->call(&v1::AttentionControl::Stub::Configure, request, reply, timeout));
  const size_t expected = config.parts.size() * static_cast<size_t>(config.num_replicas);
  if (static_cast<size_t>(reply.transport_blobs_size()) != expected) {
    return data_loss(fmt::format(
        "{} transport blobs from the worker, expected {}", reply.transport_blobs_size(), expected));
  }
  return std::vector<std::string>(reply.transport_blobs().begin(), reply.transport_blobs().end());
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
