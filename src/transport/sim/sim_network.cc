#include "transport/sim/sim_network.h"

#include <algorithm>

#include "base/check.h"

namespace lamina {
namespace {

int64_t ns(TimePoint time) {
  return time.time_since_epoch().count();
}

std::optional<TimePoint> earlier(std::optional<TimePoint> a, std::optional<TimePoint> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

}  // namespace

SimNetwork::~SimNetwork() {
  LAMINA_CHECK_EQ(links_.size(), 0U);
}

void SimNetwork::advance_to(TimePoint now) {
  LAMINA_CHECK_GE(ns(now), ns(now_));
  now_ = now;
}

SimHost& SimNetwork::add_host(std::string name) {
  return hosts_.emplace_back(std::move(name), *this);
}

SimNetwork::Pair SimNetwork::connect(SimHost& host_a,
                                     const EndpointConfig& config_a,
                                     SimHost& host_b,
                                     const EndpointConfig& config_b,
                                     const SimLinkConfig& link) {
  LAMINA_CHECK(config_a.self == config_b.peer && config_b.self == config_a.peer);
  LAMINA_CHECK(config_a.send_slots == config_b.receive_slots);
  LAMINA_CHECK(config_b.send_slots == config_a.receive_slots);
  SimLink& made =
      links_.emplace_back(link, std::array{&host_a, &host_b}, Rng(seeds_.next_u64()), record_);
  ends_[&host_a].push_back({&made, SimLink::Side{0}});
  ends_[&host_b].push_back({&made, SimLink::Side{1}});
  return {.a = std::make_unique<SimEndpoint>(config_a, *this, made, SimLink::Side{0}),
          .b = std::make_unique<SimEndpoint>(config_b, *this, made, SimLink::Side{1})};
}

void SimNetwork::kill(SimHost& host, TimePoint at) {
  LAMINA_CHECK_GE(ns(at), ns(now_));
  host.die({.at = at, .order = record_.next_order()});
}

void SimNetwork::cut(const SimEndpoint& endpoint, TimePoint at) {
  LAMINA_CHECK_GE(ns(at), ns(now_));
  endpoint.link().cut(at);
}

std::optional<TimePoint> SimNetwork::next_event_time(const SimHost& host) const {
  constexpr TimePoint kNever = TimePoint::max();
  const auto ends = ends_.find(&host);
  if (ends == ends_.end()) return std::nullopt;
  TimePoint next = kNever;
  for (const LinkEnd& end : ends->second) {
    next = std::min(next, end.link->next_event(end.side).value_or(kNever));
  }
  if (next == kNever) return std::nullopt;
  next = std::max(next, host.now());
  return next < host.death().at ? std::optional(next) : std::nullopt;
}

std::optional<TimePoint> SimNetwork::next_event_time() const {
  std::optional<TimePoint> next;
  for (const SimHost& host : hosts_) {
    next = earlier(next, next_event_time(host));
    const TimePoint death = host.death().at;
    if (death > now_ && death != TimePoint::max()) next = earlier(next, death);
  }
  return next;
}

void SimNetwork::release(SimLink& link, SimLink::Side side) {
  if (!link.release(side)) return;
  for (const SimLink::Side end : {SimLink::Side{0}, SimLink::Side{1}}) {
    std::erase_if(ends_[&link.host(end)], [&](const LinkEnd& one) { return one.link == &link; });
  }
  links_.remove_if([&](const SimLink& one) { return &one == &link; });
}

}  // namespace lamina
