#include "transport/tcp/tcp.h"

#include "transport/blob.h"
#include "transport/tcp/rendezvous.h"
#include "transport/tcp/tcp_endpoint.h"

namespace lamina {
namespace {

class PendingTcp final : public PendingEndpoint {
 public:
  explicit PendingTcp(const EndpointConfig& config)
      : config_(config),
        token_(random_token()),
        rendezvous_(config),
        blob_(encode_blob(make_blob(config, token_, rendezvous_.locator()))) {}

  [[nodiscard]] const std::string& blob() const override { return blob_; }
  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    return std::make_unique<TcpEndpoint>(
        config_, rendezvous_.meet(blob.locator, token_, blob.token, deadline));
  }

 private:
  EndpointConfig config_;
  Token token_;
  Rendezvous rendezvous_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_tcp(const EndpointConfig& config) {
  return std::make_unique<PendingTcp>(config);
}

}  // namespace lamina
