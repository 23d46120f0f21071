#include "transport/measure/host_trips.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "transport/measure/trip_times.h"

namespace lamina::measure {
namespace {

constexpr SlotIdx kSlot = 0;
constexpr uint64_t kFirstBatch = 10;

Deadline soon() {
  return Deadline::after(kMaxWait);
}

EndpointConfig endpoint_config(TransportKind kind, uint32_t max_bytes, bool asks) {
  return {.kind = kind,
          .self = {.id = asks ? 1U : 2U, .epoch = 1},
          .peer = {.id = asks ? 2U : 1U, .epoch = 1},
          .receive_slots = {max_bytes},
          .send_slots = {max_bytes},
          .listens = !asks};
}

std::unique_ptr<Endpoint> connect(const EndpointConfig& config, int socket) {
  const Deadline deadline = Deadline::after(kSetUpTime);
  const auto pending = prepare_endpoint(config);
  send_text(socket, pending->blob());
  return pending->complete(receive_text(socket, deadline), deadline);
}

// Answers until a message without payload, or until the other side has left.
Status answer(Endpoint& endpoint, uint32_t max_bytes, WaitPolicy policy) {
  std::vector<std::byte> message(max_bytes);
  for (uint64_t seq = 1;; ++seq) {
    LAMINA_RETURN_IF_ERROR(endpoint.wait(kSlot, seq, soon(), policy));
    const std::span<const std::byte> payload = endpoint.payload(kSlot);
    if (payload.empty()) return {};
    std::copy(payload.begin(), payload.end(), message.begin());
    LAMINA_RETURN_IF_ERROR(endpoint.put(kSlot, std::span(message).first(payload.size()), seq));
  }
}

}  // namespace

HostTrips::HostTrips(const Config& config)
    : config_(config), sent_(config.max_bytes), received_(config.max_bytes) {
  for (size_t i = 0; i < sent_.size(); ++i) sent_[i] = static_cast<std::byte>(i * 131 >> 3);
  if (config.kind == TransportKind::kLoopback) {
    begin_loopback();
    return;
  }
  peer_.emplace(std::string(kPeerArgument));
  send_struct(
      peer_->socket(),
      PeerRole{.max_bytes = config.max_bytes, .transport = config.kind, .wait = config.wait});
  endpoint_ = connect(endpoint_config(config.kind, config.max_bytes, true), peer_->socket());
}

// The answering side is told to end. Should it not, PeerProcess kills it, and a thread's wait has a
// deadline.
HostTrips::~HostTrips() {
  (void)endpoint_->put(kSlot, {}, ++seq_);
}

void HostTrips::begin_loopback() {
  auto theirs = prepare_endpoint(endpoint_config(config_.kind, config_.max_bytes, false));
  const auto ours = prepare_endpoint(endpoint_config(config_.kind, config_.max_bytes, true));
  const std::string blob = theirs->blob();
  answering_ = std::jthread([theirs = std::move(theirs), blob = ours->blob(), config = config_] {
    try {
      const auto endpoint = theirs->complete(blob, Deadline::after(kSetUpTime));
      throw_if_error(answer(*endpoint, config.max_bytes, config.wait));
    } catch (const Error& error) {
      std::fprintf(stderr, "answering thread: %s\n", error.what());
    }
  });
  endpoint_ = ours->complete(blob, Deadline::after(kSetUpTime));
}

Status HostTrips::round_trip(size_t size_bytes) {
  LAMINA_RETURN_IF_ERROR(endpoint_->put(kSlot, std::span(sent_).first(size_bytes), ++seq_));
  LAMINA_RETURN_IF_ERROR(endpoint_->wait(kSlot, seq_, soon(), config_.wait));
  const std::span<const std::byte> payload = endpoint_->payload(kSlot);
  if (payload.size() != size_bytes) return data_loss("the answer has another size");
  std::copy(payload.begin(), payload.end(), received_.begin());
  return {};
}

Result<std::vector<double>> HostTrips::batch(uint32_t size_bytes, uint64_t count) {
  const Clock& clock = steady_clock();
  std::vector<double> times_us;
  times_us.reserve(count);
  std::fill(received_.begin(), received_.end(), std::byte{});
  for (uint64_t i = 0; i < count; ++i) {
    const TimePoint begin = clock.now();
    LAMINA_RETURN_IF_ERROR(round_trip(size_bytes));
    times_us.push_back(static_cast<double>((clock.now() - begin).count()) * 1e-3);
  }
  if (std::memcmp(sent_.data(), received_.data(), size_bytes) == 0) return times_us;
  return data_loss("what came back is not what was sent");
}

Result<std::vector<double>> HostTrips::times_us(uint32_t size_bytes, Duration time) {
  LAMINA_CHECK(size_bytes > 0 && size_bytes <= config_.max_bytes);
  return measure_for(time, kFirstBatch, [&](uint64_t count) { return batch(size_bytes, count); });
}

void answer_as_host(const PeerRole& role) {
  const auto endpoint =
      connect(endpoint_config(role.transport, role.max_bytes, false), kPeerSocket);
  throw_if_error(answer(*endpoint, role.max_bytes, role.wait));
}

}  // namespace lamina::measure
