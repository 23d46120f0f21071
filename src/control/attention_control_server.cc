#include "control/attention_control_server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "base/log.h"
#include "control/attention_control.grpc.pb.h"
#include "control/channel.h"
#include "control/codec.h"
#include "control/session_lease.h"

namespace lamina::control {
namespace {

// How often the lease is looked at: a fraction of the shortest lease that validate() allows.
constexpr auto kLeaseCheckInterval = std::chrono::milliseconds(50);
constexpr int kKeepaliveMs = 10'000;
// Of gRPC's buffers, all connections together: a message may be kMaxMessageBytes long before
// anybody has looked at its secret.
constexpr size_t kMaxMemoryBytes = size_t{128} << 20;

int to_milliseconds(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

uint64_t random_incarnation() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const ControlSecurity& security) {
  if (security.tls.empty()) return grpc::InsecureServerCredentials();
  TlsMaterial material = load_tls(security.tls);
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = std::move(material.ca);
  options.pem_key_cert_pairs.push_back(
      {std::move(material.private_key), std::move(material.certificate)});
  return grpc::SslServerCredentials(options);
}

bool presents_secret(const grpc::ServerContext& context, const std::string& secret) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kSecretMetadataKey);
  return found != metadata.end() &&
         secrets_equal({found->second.data(), found->second.size()}, secret);
}

}  // namespace

// The service and the thread that watches the lease.
class AttentionControlServer::Impl final : public v1::AttentionControl::Service {
 public:
  Impl(const AttentionControlServerConfig& config,
       AttentionControlHandler& handler,
       const Clock& clock);
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() override { stop(std::chrono::seconds(1)); }

  grpc::Status Describe(grpc::ServerContext* context,
                        const v1::DescribeRequest* request,
                        v1::DescribeReply* reply) override;
  grpc::Status Configure(grpc::ServerContext* context,
                         const v1::ConfigureRequest* request,
                         v1::ConfigureReply* reply) override;
  grpc::Status Heartbeat(grpc::ServerContext* context,
                         const v1::HeartbeatRequest* request,
                         v1::HeartbeatReply* reply) override;
  grpc::Status EndSession(grpc::ServerContext* context,
                          const v1::EndSessionRequest* request,
                          v1::EndSessionReply* reply) override;

  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] uint64_t incarnation() const { return incarnation_; }
  void stop(Duration grace);

 private:
  void listen(const AttentionControlServerConfig& config);
  // Authenticates, runs `call` and turns what it returns or throws into gRPC's status.
  template <typename Call>
  grpc::Status serve(const grpc::ServerContext& context, Call call);
  Result<std::vector<std::string>> open_session(const SessionConfig& config);
  void end_held_session(SessionEnd reason);  // session_mutex_ is held
  void watch_lease();

  const std::string secret_;
  const uint64_t incarnation_ = random_incarnation();
  AttentionControlHandler& handler_;
  SessionLease lease_;
  std::mutex session_mutex_;  // held around the handler's configure() and end_session()
  uint16_t port_ = 0;

  std::mutex stop_mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::unique_ptr<grpc::Server> server_;
  std::thread lease_thread_;
};

AttentionControlServer::Impl::Impl(const AttentionControlServerConfig& config,
                                   AttentionControlHandler& handler,
                                   const Clock& clock)
    : secret_(config.security.cluster_secret), handler_(handler), lease_(clock) {
  route_grpc_log();
  check_security(config.security, config.listen.host, "listen on");
  listen(config);
  lease_thread_ = std::thread([this] { watch_lease(); });
}

void AttentionControlServer::Impl::listen(const AttentionControlServerConfig& config) {
  grpc::ResourceQuota quota("lamina-control");
  quota.SetMaxThreads(config.max_threads);
  quota.Resize(kMaxMemoryBytes);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_threads);
  // Without this a second worker could listen on the same port and take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Connections of engines that vanished are closed; engines ping idle connections too, which a
  // server refuses unless told.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             to_milliseconds(config.handshake_timeout));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, to_milliseconds(config.idle_timeout));
  int port = 0;
  builder.AddListeningPort(config.listen.to_string(), server_credentials(config.security), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port <= 0) {
    throw Error(StatusCode::kUnavailable,
                fmt::format("cannot listen on {}: the port is in use, the address is not of this "
                            "machine, or the certificate and key do not match",
                            config.listen.to_string()));
  }
  port_ = static_cast<uint16_t>(port);
}

template <typename Call>
grpc::Status AttentionControlServer::Impl::serve(const grpc::ServerContext& context, Call call) {
  if (!secret_.empty() && !presents_secret(context, secret_)) {
    return to_grpc(unauthenticated("wrong or missing cluster secret: both ends need the same one"));
  }
  try {
    return to_grpc(call());
  } catch (const Error& error) {
    return to_grpc(error.status());
  } catch (const std::exception& error) {
    log_error("control call of {} failed: {}", context.peer(), error.what());
    return to_grpc(internal_error(error.what()));
  }
}

grpc::Status AttentionControlServer::Impl::Describe(grpc::ServerContext* context,
                                                    const v1::DescribeRequest* /*request*/,
                                                    v1::DescribeReply* reply) {
  return serve(*context, [&] {
    WorkerInfo info = handler_.describe();
    info.protocol_version = kProtocolVersion;
    info.incarnation = incarnation_;
    info.session_epoch = lease_.live_epoch();
    encode(info, *reply);
    return Status();
  });
}

grpc::Status AttentionControlServer::Impl::Configure(grpc::ServerContext* context,
                                                     const v1::ConfigureRequest* request,
                                                     v1::ConfigureReply* reply) {
  return serve(*context, [&]() -> Status {
    LAMINA_ASSIGN_OR_RETURN(const SessionConfig config, decode(*request));
    LAMINA_ASSIGN_OR_RETURN(std::vector<std::string> blobs, open_session(config));
    for (std::string& blob : blobs) reply->add_transport_blobs(std::move(blob));
    return {};
  });
}

Result<std::vector<std::string>> AttentionControlServer::Impl::open_session(
    const SessionConfig& config) {
  // Never waited for: a call that hangs in the handler must not take the other threads with it.
  const std::unique_lock lock(session_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    return unavailable("a session is being opened or ended at this worker; try again");
  }
  const SessionLease::Holder holder{
      .engine_id = config.engine_id, .engine_name = config.engine_name, .epoch = config.epoch};
  LAMINA_RETURN_IF_ERROR(lease_.admit(holder));
  end_held_session(lease_.has_expired() ? SessionEnd::kLeaseExpired : SessionEnd::kReplaced);
  LAMINA_ASSIGN_OR_RETURN(std::vector<std::string> blobs, handler_.configure(config));
  lease_.start(holder, std::chrono::milliseconds(config.lease_ms));
  log_info("session {} of engine '{}' is open", config.epoch, config.engine_name);
  return blobs;
}

grpc::Status AttentionControlServer::Impl::Heartbeat(grpc::ServerContext* context,
                                                     const v1::HeartbeatRequest* request,
                                                     v1::HeartbeatReply* reply) {
  return serve(*context, [&] {
    LAMINA_RETURN_IF_ERROR(lease_.renew(request->epoch()));
    WorkerStats stats = handler_.heartbeat();
    stats.incarnation = incarnation_;
    // Not the request's: if the session was replaced meanwhile, these are the new one's counters.
    stats.epoch = lease_.live_epoch();
    encode(stats, *reply);
    return Status();
  });
}

grpc::Status AttentionControlServer::Impl::EndSession(grpc::ServerContext* context,
                                                      const v1::EndSessionRequest* request,
                                                      v1::EndSessionReply* /*reply*/) {
  return serve(*context, [&] {
    const std::unique_lock lock(session_mutex_, std::try_to_lock);
    if (!lock.owns_lock()) {
      return unavailable("a session is being opened or ended at this worker; try again");
    }
    LAMINA_RETURN_IF_ERROR(lease_.check(request->epoch()));
    end_held_session(SessionEnd::kRequested);
    return Status();
  });
}

void AttentionControlServer::Impl::end_held_session(SessionEnd reason) {
  const std::optional<uint64_t> epoch = lease_.clear();
  if (!epoch) return;
  log_info("session {} ends: {}", *epoch, session_end_name(reason));
  try {
    handler_.end_session(*epoch, reason);
  } catch (const std::exception& error) {
    log_error("ending session {} failed: {}", *epoch, error.what());
  }
}

void AttentionControlServer::Impl::watch_lease() {
  std::unique_lock lock(stop_mutex_);
  while (!stop_signal_.wait_for(lock, kLeaseCheckInterval, [this] { return stopping_; })) {
    if (!lease_.has_expired()) continue;
    lock.unlock();
    {
      const std::lock_guard session_lock(session_mutex_);
      if (lease_.has_expired()) end_held_session(SessionEnd::kLeaseExpired);
    }
    lock.lock();
  }
}

void AttentionControlServer::Impl::stop(Duration grace) {
  {
    const std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_signal_.notify_all();
  if (lease_thread_.joinable()) lease_thread_.join();
  if (server_ == nullptr) return;
  server_->Shutdown(grpc_deadline(grace));
  server_->Wait();
  server_.reset();
  const std::lock_guard session_lock(session_mutex_);
  end_held_session(SessionEnd::kServerStopped);
}

AttentionControlServer::AttentionControlServer(const AttentionControlServerConfig& config,
                                               AttentionControlHandler& handler,
                                               const Clock& clock)
    : impl_(std::make_unique<Impl>(config, handler, clock)) {}
AttentionControlServer::~AttentionControlServer() = default;

uint16_t AttentionControlServer::port() const {
  return impl_->port();
}
uint64_t AttentionControlServer::incarnation() const {
  return impl_->incarnation();
}
void AttentionControlServer::stop(Duration grace) {
  impl_->stop(grace);
}

}  // namespace lamina::control
