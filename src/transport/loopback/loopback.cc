#include "transport/loopback/loopback.h"

#include <map>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "transport/blob.h"
#include "transport/region_endpoint.h"
#include "transport/slot_memory.h"

namespace lamina {
namespace {

// The token alone says which region.
constexpr const char* kLocator = "here";

using SharedBytes = std::shared_ptr<SlotMemory>;

SharedBytes allocate(size_t size_bytes) {
  return std::make_shared<SlotMemory>(std::vector<size_t>{size_bytes});
}

// One of the two who use a region.
class LoopbackMemory final : public RegionMemory {
 public:
  explicit LoopbackMemory(SharedBytes bytes) : bytes_(std::move(bytes)) {}

  [[nodiscard]] std::byte* data() const override { return bytes_->payload(0).data(); }
  void revoke() override {
    revoked_ = std::move(bytes_);
    bytes_ = allocate(revoked_->payload(0).size());
  }
  [[nodiscard]] bool owner_lives() const override { return true; }

 private:
  SharedBytes bytes_;
  SharedBytes revoked_;  // old pointers into it stay valid
};

// Regions that wait for their peer, by token. Internally locked.
class Registry {
 public:
  static Registry& instance() {
    static Registry registry;
    return registry;
  }
  void add(const Token& token, SharedBytes bytes) {
    const std::lock_guard lock(mutex_);
    waiting_[token] = std::move(bytes);
  }
  // Null for a token that is unknown or was taken.
  SharedBytes take(const Token& token) {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(token);
    if (found == waiting_.end()) return nullptr;
    SharedBytes bytes = std::move(found->second);
    waiting_.erase(found);
    return bytes;
  }

 private:
  std::mutex mutex_;
  std::map<Token, SharedBytes> waiting_;
};

class PendingLoopback final : public PendingEndpoint {
 public:
  explicit PendingLoopback(const EndpointConfig& config)
      : config_(config),
        token_(random_token()),
        bytes_(allocate(SlotRegion::total_bytes(config.receive_slots))),
        blob_(encode_blob(make_blob(config, token_, kLocator))) {
    SlotRegion(bytes_->payload(0).data(), config_.receive_slots).initialise(token_);
    Registry::instance().add(token_, bytes_);
  }
  PendingLoopback(const PendingLoopback&) = delete;
  PendingLoopback& operator=(const PendingLoopback&) = delete;
  ~PendingLoopback() override {
    // Without an endpoint on this side the peer must not find the region.
    if (bytes_ != nullptr) Registry::instance().take(token_);
  }

  [[nodiscard]] const std::string& blob() const override { return blob_; }
  std::unique_ptr<Endpoint> complete(const std::string& peer_blob, Deadline) override {
    const Blob blob = decode_blob(peer_blob, config_);
    if (blob.locator != kLocator) {
      throw Error(StatusCode::kInvalidArgument, "not a blob of a loopback endpoint");
    }
    SharedBytes peers = Registry::instance().take(blob.token);
    if (peers == nullptr) {
      throw Error(StatusCode::kUnauthenticated, "no loopback endpoint waits for that token");
    }
    SlotRegion(peers->payload(0).data(), config_.send_slots).validate(blob.token);
    return std::make_unique<RegionEndpoint>(config_,
                                            std::make_unique<LoopbackMemory>(std::move(bytes_)),
                                            std::make_unique<LoopbackMemory>(std::move(peers)));
  }

 private:
  EndpointConfig config_;
  Token token_;
  SharedBytes bytes_;
  std::string blob_;
};

}  // namespace

std::unique_ptr<PendingEndpoint> prepare_loopback(const EndpointConfig& config) {
  return std::make_unique<PendingLoopback>(config);
}

}  // namespace lamina
