#include "transport/cuda_p2p/p2p_endpoint.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/cuda_p2p/p2p_link.h"
#include "transport/cuda_p2p/unix_socket.h"
#include "transport/region_endpoint.h"
#include "transport/shm/shm_region.h"

namespace lamina::cuda_p2p {

namespace {

class P2pEndpoint final : public RegionEndpoint {
 public:
  P2pEndpoint(const EndpointConfig& config,
              std::unique_ptr<RegionMemory> own,
              std::unique_ptr<RegionMemory> peers,
              std::unique_ptr<P2pLink> link)
      : RegionEndpoint(config, std::move(own), std::move(peers)), link_(std::move(link)) {}

  DeviceLink* device_link() override { return link_.get(); }

 private:
  void wake() override {
    RegionEndpoint::wake();
    link_->abort();
  }
  // What devices share stays mapped: kernels may be under way. Nobody waits for it any more.
  void revoke() override {
    RegionEndpoint::revoke();
    link_->abort();
  }

  std::unique_ptr<P2pLink> link_;
};

// Where to find a side, as its blob has it: "<region>:<socket>:<device>", without a socket where
// the side connects.
struct Locator {
  std::string region;
  std::string socket;
  bool is_gpu = false;

  [[nodiscard]] std::string encode() const {
    return fmt::format("{}:{}:{}", region, socket, is_gpu ? "gpu" : "cpu");
  }
  static std::optional<Locator> decode(const std::string& text) {
    const size_t first = text.find(':');
    const size_t last = text.rfind(':');
    if (first == std::string::npos || first == last) return std::nullopt;
    const std::string device = text.substr(last + 1);
    if (device != "gpu" && device != "cpu") return std::nullopt;
    return Locator{.region = text.substr(0, first),
                   .socket = text.substr(first + 1, last - first - 1),
                   .is_gpu = device == "gpu"};
  }
};

std::string random_name() {
  return "lamina-" + to_hex(random_token());
}

class PendingP2p final : public PendingEndpoint {
 public:
  explicit PendingP2p(const EndpointConfig& config)
      : config_(config),
        token_(random_token()),
        region_(ShmRegion::create(SlotRegion::total_bytes(config.receive_slots))),
        socket_name_(config.listens ? random_name() : ""),
        listener_(config.listens ? listen_at(socket_name_) : FileHandle()),
        blob_(encode_blob(
            make_blob(config,
                      token_,
                      Locator{.region = region_->name(), .socket = socket_name_, .is_gpu = is_gpu()}
                          .encode()))) {
    SlotRegion(region_->data(), config_.receive_slots).initialise(token_);
  }

  [[nodiscard]] const std::string& blob() const override { return blob_; }

  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    const std::optional<Locator> peer = Locator::decode(blob.locator);
    if (!peer || peer->socket.empty() != config_.listens) {
      throw Error(StatusCode::kInvalidArgument, "not a place where a cuda_p2p endpoint is");
    }
    auto peers = ShmRegion::open(peer->region, SlotRegion::total_bytes(config_.send_slots));
    SlotRegion(peers->data(), config_.send_slots).validate(blob.token);
    peers->unlink();
    FileHandle socket = config_.listens ? accept_own_user(listener_.get(), deadline)
                                        : connect_to_own_user(peer->socket);
    auto link = std::make_unique<P2pLink>(
        link_config(blob.token, is_gpu() && peer->is_gpu), std::move(socket), deadline);
    return std::make_unique<P2pEndpoint>(
        config_, std::move(region_), std::move(peers), std::move(link));
  }

 private:
  [[nodiscard]] bool is_gpu() const { return config_.device.kind == DeviceKind::kCuda; }

  // The listener's token, which both sides know from the control plane.
  [[nodiscard]] LinkConfig link_config(const Token& peers_token, bool is_between_gpus) const {
    return {.self = config_.self,
            .peer = config_.peer,
            .token = config_.listens ? token_ : peers_token,
            .device = config_.device,
            .place = is_between_gpus ? Place::kGpuMemory : Place::kHostMemory,
            .receive_slots = config_.device_receive_slots,
            .send_slots = config_.device_send_slots};
  }

  EndpointConfig config_;
  Token token_;
  std::unique_ptr<ShmRegion> region_;
  std::string socket_name_;
  FileHandle listener_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_cuda_p2p(const EndpointConfig& config) {
  ShmRegion::remove_leftovers();
  return std::make_unique<PendingP2p>(config);
}

}  // namespace lamina::cuda_p2p
