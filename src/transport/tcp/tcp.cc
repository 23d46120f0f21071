#include "transport/tcp/tcp.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_endpoint.h"

namespace lamina {
namespace {

// The connector's blob carries it in place of a port.
constexpr const char* kConnects = "connects";

class PendingTcp final : public PendingEndpoint {
 public:
  explicit PendingTcp(const EndpointConfig& config) : config_(config), token_(random_token()) {
    std::string locator = kConnects;
    if (config_.listens) {
      listener_ = listen_on(config_.host, 0);
      locator = std::to_string(local_port(listener_.get()));
    }
    blob_ = encode_blob(make_blob(config_, token_, std::move(locator)));
  }

  [[nodiscard]] const std::string& blob() const override { return blob_; }
  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    FileHandle socket = config_.listens ? accept(blob, deadline) : connect(blob, deadline);
    return std::make_unique<TcpEndpoint>(config_, std::move(socket));
  }

 private:
  FileHandle accept(const Blob& blob, Deadline deadline) {
    if (blob.locator != kConnects) {
      throw Error(StatusCode::kInvalidArgument, "both sides of a tcp endpoint listen");
    }
    const Hello expected{.from = config_.peer, .to = config_.self, .token = token_};
    const FileHandle listener = std::move(listener_);  // closes when the peer is in
    return accept_peer(listener.get(), expected, {.token = blob.token}, deadline);
  }

  FileHandle connect(const Blob& blob, Deadline deadline) {
    uint16_t port = 0;
    const char* end = blob.locator.data() + blob.locator.size();
    const auto [parsed, error] = std::from_chars(blob.locator.data(), end, port);
    if (error != std::errc() || parsed != end || port == 0) {
      throw Error(StatusCode::kInvalidArgument,
                  fmt::format("'{}' in the peer's blob is no port: one side of a tcp endpoint must "
                              "listen",
                              blob.locator));
    }
    FileHandle socket = connect_to(config_.host, port, deadline);
    const Hello hello{.from = config_.self, .to = config_.peer, .token = blob.token};
    introduce(socket.get(), hello, {.token = token_}, deadline);
    return socket;
  }

  EndpointConfig config_;
  Token token_;
  FileHandle listener_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_tcp(const EndpointConfig& config) {
  return std::make_unique<PendingTcp>(config);
}

}  // namespace lamina
