#include "transport/measure/cpu_end.h"

#include <algorithm>
#include <span>

#include "transport/cuda_p2p/host_messages.h"

namespace lamina::measure {
namespace {

// A graph runs once more, without times, before it is captured.
uint64_t num_trips(const DeviceCommand& command) {
  return command.kind.drive == Drive::kGraph ? (command.count + 1) * kGraphTrips : command.count;
}

}  // namespace

CpuEnd::CpuEnd(const DeviceEndConfig& config, int socket, Deadline deadline)
    : asks_(config.asks),
      link_(link_config(config), socket, deadline),
      guard_(StreamView(pool_), config.max_wait),
      source_(cuda_p2p::chunks_of(config.max_bytes)),
      sink_(source_.size()) {
  for (uint32_t i = 0; i < source_.size(); ++i) source_[i] = trip_chunk(i);
}

Status CpuEnd::begin(const DeviceCommand& command) {
  times_us_.clear();
  std::fill(sink_.begin(), sink_.end(), cuda_p2p::Chunk{});
  LAMINA_RETURN_IF_ERROR(link_.clear_inbox());
  return guard_.begin_epoch(command.epoch);
}

Status CpuEnd::run(const DeviceCommand& command) {
  const Clock& clock = steady_clock();
  const cuda_p2p::Plan plan = command.plan();
  const auto sent = std::as_bytes(std::span(source_).first(plan.num_chunks));
  const auto received = std::as_writable_bytes(std::span(sink_).first(plan.num_chunks));
  const uint64_t count = num_trips(command);
  if (asks_) times_us_.reserve(count);
  for (uint64_t n = 1; n <= count; ++n) {
    const cuda_p2p::Stamp stamp = cuda_p2p::make_stamp(command.epoch, n);
    const TimePoint begin = clock.now();
    if (asks_) cuda_p2p::put(link_.outbox(0), plan, stamp, sent);
    if (!cuda_p2p::take(link_.inbox(0), plan, stamp, guard_.view(), received).ok()) {
      return guard_.status();
    }
    if (asks_) {
      times_us_.push_back(static_cast<double>((clock.now() - begin).count()) * 1e-3);
    } else {
      cuda_p2p::put(link_.outbox(0), plan, stamp, sent);
    }
  }
  return check_trip_chunks(sink_.data(), plan.num_chunks);
}

}  // namespace lamina::measure
