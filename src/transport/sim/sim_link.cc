#include "transport/sim/sim_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace lamina {
namespace {

// A protocol that keeps its contract has one message of a slot under way.
constexpr int64_t kMaxUnderWayPerSlot = 4;
// Of one message; then it gets through.
constexpr int kMaxRetransmissions = 8;

bool is_probability(double value) {
  return value >= 0 && value <= 1;
}

void check_config(const SimLinkConfig& config) {
  LAMINA_CHECK(config.latency > Duration::zero(), "an answer must come after its question");
  LAMINA_CHECK_GT(config.bandwidth_bytes_per_us, 0);
  LAMINA_CHECK(config.jitter >= Duration::zero() && config.detection_delay >= Duration::zero() &&
               config.retransmit_after >= Duration::zero());
  LAMINA_CHECK(is_probability(config.loss_probability) && is_probability(config.death_probability));
}

SimEvent earlier(SimEvent a, SimEvent b) {
  return b.at < a.at ? b : a;
}

SimEvent delayed(SimEvent event, Duration by) {
  if (event.at != TimePoint::max()) event.at += by;
  return event;
}

}  // namespace

void SimRecord::add_violation(std::string text) {
  if (num_violations++ == 0) first_violation = std::move(text);
}

SimLink::SimLink(const SimLinkConfig& config,
                 std::array<SimHost*, 2> hosts,
                 Rng seeds,
                 SimRecord& record)
    : config_(config), record_(record) {
  check_config(config_);
  for (Side side = 0; side < hosts.size(); ++side) {
    sides_[side].host = hosts[side];
    sides_[side].rng = Rng(seeds.next_u64());
  }
}

void SimLink::send(Side from, SlotIdx slot, std::span<const std::byte> payload, uint64_t seq) {
  End& to = sides_[other(from)];
  const TimePoint sent_at = host(from).now();
  // Drawn even if nobody receives, so that what follows does not depend on it.
  const TimePoint arrives_at = draw_arrival(to, slot, payload.size(), sent_at);
  if (config_.death_probability > 0 && to.rng.next_double() < config_.death_probability) {
    return cut(arrives_at);
  }
  if (!to.receives) return;
  check_overwrite(from, slot, seq);
  SimMessage message{.slot = slot,
                     .seq = seq,
                     .payload = {payload.begin(), payload.end()},
                     .sent_at = sent_at,
                     .arrival = {.at = arrives_at, .order = record_.next_order()}};
  const auto after = std::upper_bound(
      to.under_way.begin(), to.under_way.end(), arrives_at, [](TimePoint at, const auto& one) {
        return at < one.arrival.at;
      });
  to.under_way.insert(after, std::move(message));
}

TimePoint SimLink::draw_arrival(End& to, SlotIdx slot, size_t size_bytes, TimePoint sent_at) const {
  const double transfer_us = static_cast<double>(size_bytes) / config_.bandwidth_bytes_per_us;
  Duration delay = config_.latency + Duration(std::llround(transfer_us * 1000));
  const auto jitter_ns = static_cast<uint64_t>(config_.jitter.count());
  if (jitter_ns > 0) delay += Duration(to.rng.next_below(jitter_ns + 1));
  Duration repeat = config_.retransmit_after;
  for (int i = 0; i < kMaxRetransmissions && config_.loss_probability > 0; ++i) {
    if (to.rng.next_double() >= config_.loss_probability) break;
    delay += repeat;
    repeat *= 2;
  }
  if (to.slot_arrivals.size() <= slot) to.slot_arrivals.resize(slot + 1, TimePoint::min());
  const TimePoint not_before = config_.reorder ? to.slot_arrivals[slot] : to.last_arrival;
  const TimePoint arrives_at = std::max(sent_at + delay, not_before);
  to.slot_arrivals[slot] = arrives_at;
  to.last_arrival = std::max(to.last_arrival, arrives_at);
  return arrives_at;
}

// The receiver checks for messages that it never saw; here are those that it cannot have seen, as
// the sender should know.
void SimLink::check_overwrite(Side from, SlotIdx slot, uint64_t seq) {
  End& to = sides_[other(from)];
  const auto same_slot = [slot](const SimMessage& message) { return message.slot == slot; };
  const auto oldest = std::find_if(to.under_way.begin(), to.under_way.end(), same_slot);
  if (oldest == to.under_way.end()) return;
  const bool is_full = std::count_if(oldest, to.under_way.end(), same_slot) >= kMaxUnderWayPerSlot;
  const auto newest = std::find_if(to.under_way.rbegin(), to.under_way.rend(), same_slot);
  if (is_full || newest->arrival.at > host(from).now()) {
    record_.add_violation(fmt::format("{} sent {} message {} of slot {} while {} was under way",
                                      host(from).name(),
                                      to.host->name(),
                                      seq,
                                      slot,
                                      newest->seq));
  }
  if (is_full) to.under_way.erase(oldest);
}

std::optional<SimMessage> SimLink::receive(Side to) {
  std::vector<SimMessage>& under_way = sides_[to].under_way;
  const TimePoint end = std::min(host(to).now(), peer_gone(to).at);
  while (!under_way.empty() && under_way.front().arrival.at <= end) {
    SimMessage message = std::move(under_way.front());
    under_way.erase(under_way.begin());
    // Its sender may have been killed after the fact, at a time that it had already passed.
    if (message.sent_at < host(other(to)).death().at) return message;
  }
  if (is_down(to)) under_way.clear();
  return std::nullopt;
}

bool SimLink::is_down(Side side) const {
  const TimePoint now = host(side).now();
  return now >= peer_gone(side).at || host(side).is_dead();
}

void SimLink::stop_receiving(Side side) {
  sides_[side].receives = false;
  sides_[side].under_way.clear();
}

void SimLink::leave(Side side) {
  stop_receiving(side);
  if (sides_[side].has_left) return;
  sides_[side].has_left = true;
  End& peer = sides_[other(side)];
  const TimePoint noticed_at = std::max(host(side).now() + config_.latency, peer.last_arrival);
  // The dead say nothing: their peers are left to the detection delay.
  if (!host(side).is_dead()) peer.peer_left = {.at = noticed_at, .order = record_.next_order()};
}

bool SimLink::release(Side side) {
  leave(side);
  sides_[side].is_released = true;
  return sides_[other(side)].is_released;
}

void SimLink::cut(TimePoint at) {
  cut_ = earlier(cut_, {.at = at, .order = record_.next_order()});
}

SimEvent SimLink::peer_gone(Side side) const {
  const SimEvent detected = delayed(host(other(side)).death(), config_.detection_delay);
  return earlier(earlier(cut_, sides_[side].peer_left), detected);
}

std::optional<TimePoint> SimLink::next_event(Side side) const {
  const End& end = sides_[side];
  if (!end.receives) return std::nullopt;
  const SimEvent gone = peer_gone(side);
  TimePoint next = TimePoint::max();
  if (gone.at != TimePoint::max() && !end.host->has_noticed(gone)) next = gone.at;
  for (const SimMessage& message : end.under_way) {
    if (message.arrival.at >= std::min(next, gone.at)) break;
    if (!end.host->has_noticed(message.arrival)) next = message.arrival.at;
  }
  return next == TimePoint::max() ? std::nullopt : std::optional(next);
}

}  // namespace lamina
