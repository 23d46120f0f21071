#include "transport/nccl/nccl_endpoint.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/nccl/nccl_link.h"
#include "transport/tcp/rendezvous.h"
#include "transport/tcp/tcp_endpoint.h"

namespace lamina::nccl {
namespace {

class NcclEndpoint final : public TcpEndpoint {
 public:
  NcclEndpoint(const EndpointConfig& config, FileHandle socket, std::unique_ptr<NcclLink> link)
      : TcpEndpoint(config, std::move(socket)), link_(std::move(link)) {}

  DeviceLink* device_link() override { return link_.get(); }

 private:
  void wake() override {
    TcpEndpoint::wake();
    link_->abort();
  }
  void revoke() override {
    TcpEndpoint::revoke();
    link_->abort();
  }

  std::unique_ptr<NcclLink> link_;
};

// Where a side's two connections are, as its blob has it: "<of hosts>:<of the link>".
struct Locator {
  std::string hosts;
  std::string link;

  static std::optional<Locator> decode(const std::string& text) {
    const size_t colon = text.find(':');
    if (colon == std::string::npos) return std::nullopt;
    return Locator{.hosts = text.substr(0, colon), .link = text.substr(colon + 1)};
  }
};

void check_channels(const EndpointConfig& config) {
  const size_t count = config.num_device_channels;
  const bool is_divisible = count > 0 && config.device_receive_slots.size() % count == 0 &&
                            config.device_send_slots.size() % count == 0;
  if (is_divisible) return;
  throw Error(StatusCode::kInvalidArgument,
              fmt::format("{} and {} slots of devices for {} channels",
                          config.device_receive_slots.size(),
                          config.device_send_slots.size(),
                          count));
}

class PendingNccl final : public PendingEndpoint {
 public:
  PendingNccl(const EndpointConfig& config, const Library& library)
      : config_(config),
        library_(library),
        token_(random_token()),
        hosts_(config),
        link_(config),
        blob_(encode_blob(
            make_blob(config, token_, fmt::format("{}:{}", hosts_.locator(), link_.locator())))) {}

  [[nodiscard]] const std::string& blob() const override { return blob_; }

  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    const std::optional<Locator> peer = Locator::decode(blob.locator);
    if (!peer) {
      throw Error(StatusCode::kInvalidArgument, "not a place where an nccl endpoint is");
    }
    FileHandle hosts = hosts_.meet(peer->hosts, token_, blob.token, deadline);
    FileHandle socket = link_.meet(peer->link, token_, blob.token, deadline);
    auto link = std::make_unique<NcclLink>(library_, link_config(), std::move(socket), deadline);
    return std::make_unique<NcclEndpoint>(config_, std::move(hosts), std::move(link));
  }

 private:
  [[nodiscard]] LinkConfig link_config() const {
    return {.listens = config_.listens,
            .device = config_.device,
            .num_channels = config_.num_device_channels,
            .receive_slots = config_.device_receive_slots,
            .send_slots = config_.device_send_slots};
  }

  EndpointConfig config_;
  const Library& library_;
  Token token_;
  Rendezvous hosts_;
  Rendezvous link_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config,
                                              const Library& library) {
  check_channels(config);
  return std::make_unique<PendingNccl>(config, library);
}

namespace {

// What is not there now will not come: nobody is to ask again.
const Library& require_library() try { return library(); } catch (const Error& error) {
  throw Error(StatusCode::kUnimplemented, error.status().message());
}

}  // namespace

// Kernels are loaded before any waits, as over cuda_p2p.
std::unique_ptr<PendingEndpoint> prepare_nccl(const EndpointConfig& config) {
  if (config.device.kind != DeviceKind::kCuda) {
    throw Error(StatusCode::kInvalidArgument,
                "--transport nccl is between GPUs, and this worker is on a CPU: --device cuda, or "
                "--transport tcp");
  }
  const Library& loaded = require_library();
  cuda_p2p::load_kernels(config.device);
  return prepare_nccl(config, loaded);
}

}  // namespace lamina::nccl
