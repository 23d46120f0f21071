#include "transport/nccl/linked_endpoint.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/tcp/rendezvous.h"
#include "transport/tcp/tcp_endpoint.h"

namespace lamina::nccl {
namespace {

class LinkedEndpoint final : public TcpEndpoint {
 public:
  LinkedEndpoint(const EndpointConfig& config, FileHandle socket, std::unique_ptr<DeviceLink> link)
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

  std::unique_ptr<DeviceLink> link_;
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

class PendingLinked final : public PendingEndpoint {
 public:
  PendingLinked(const EndpointConfig& config, MakeLink make_link)
      : config_(config),
        make_link_(std::move(make_link)),
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
      throw Error(StatusCode::kInvalidArgument, "not a place where an endpoint with a link is");
    }
    FileHandle hosts = hosts_.meet(peer->hosts, token_, blob.token, deadline);
    FileHandle socket = link_.meet(peer->link, token_, blob.token, deadline);
    auto link = make_link_(link_config(), std::move(socket), deadline);
    return std::make_unique<LinkedEndpoint>(config_, std::move(hosts), std::move(link));
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
  MakeLink make_link_;
  Token token_;
  Rendezvous hosts_;
  Rendezvous link_;
  std::string blob_;
};

}  // namespace

// What is not there now will not come: nobody is to ask again. Kernels are loaded before any waits,
// as over cuda_p2p.
const Library& require_gpu_and_library(const EndpointConfig& config) try {
  if (config.device.kind != DeviceKind::kCuda) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("--transport {} is between GPUs, and this worker is on a CPU: "
                            "--device cuda, or --transport tcp",
                            transport_name(config.kind)));
  }
  const Library& loaded = library();
  cuda_p2p::load_kernels(config.device);
  return loaded;
} catch (const Error& error) {
  const StatusCode code = error.status().code();
  throw Error(code == StatusCode::kUnavailable ? StatusCode::kUnimplemented : code,
              error.status().message());
}

std::unique_ptr<PendingEndpoint> prepare_linked(const EndpointConfig& config, MakeLink make_link) {
  check_channels(config);
  return std::make_unique<PendingLinked>(config, std::move(make_link));
}

}  // namespace lamina::nccl
