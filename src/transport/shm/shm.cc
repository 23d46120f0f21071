#include "transport/shm/shm.h"

#include "transport/blob.h"
#include "transport/region_endpoint.h"
#include "transport/shm/shm_region.h"

namespace lamina {
namespace {

class PendingShm final : public PendingEndpoint {
 public:
  explicit PendingShm(const EndpointConfig& config)
      : config_(config),
        token_(random_token()),
        region_(ShmRegion::create(SlotRegion::total_bytes(config.receive_slots))),
        blob_(encode_blob(make_blob(config, token_, region_->name()))) {
    SlotRegion(region_->data(), config_.receive_slots).initialise(token_);
  }

  [[nodiscard]] const std::string& blob() const override { return blob_; }
  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    auto peers = ShmRegion::open(blob.locator, SlotRegion::total_bytes(config_.send_slots));
    SlotRegion(peers->data(), config_.send_slots).validate(blob.token);
    peers->unlink();
    return std::make_unique<RegionEndpoint>(config_, std::move(region_), std::move(peers));
  }

 private:
  EndpointConfig config_;
  Token token_;
  std::unique_ptr<ShmRegion> region_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_shm(const EndpointConfig& config) {
  ShmRegion::remove_leftovers();
  return std::make_unique<PendingShm>(config);
}

}  // namespace lamina
