#include "transport/measure/gpu_end.h"

#include <algorithm>
#include <cstring>

#include "transport/cuda_p2p/launch.h"
#include "transport/measure/cuda/replay_times.h"
#include "transport/measure/cuda/round_trips.h"
#include "transport/measure/trip_times.h"

namespace lamina::measure {
namespace {

using cuda_p2p::Chunk;

// What lies in GpuEnd::words_.
struct Words {
  uint64_t meeting;
  ClockSpan span;
};

Words& words_in(const Buffer& buffer) {
  return *reinterpret_cast<Words*>(buffer.data());
}

size_t whole_bytes(uint32_t size_bytes) {
  return cuda_p2p::chunks_of(size_bytes) * sizeof(Chunk);
}

}  // namespace

GpuEnd::GpuEnd(const DeviceEndConfig& config, int socket, Deadline deadline)
    : asks_(config.asks),
      stream_(config.device),
      link_(link_config(config), socket, deadline),
      guard_(stream_.view(), config.max_wait),
      source_(MemoryKind::kCuda, whole_bytes(config.max_bytes)),
      sink_(MemoryKind::kCuda, source_.size_bytes()),
      words_(MemoryKind::kCuda, sizeof(Words)),
      cycles_(MemoryKind::kCuda, kMaxTrips * sizeof(uint64_t)),
      staged_(MemoryKind::kPinnedHost,
              std::max<size_t>(source_.size_bytes(), sizeof(Words) + cycles_.size_bytes())) {
  auto* const chunks = reinterpret_cast<Chunk*>(staged_.data());
  for (uint32_t i = 0; i < cuda_p2p::chunks_of(config.max_bytes); ++i) chunks[i] = trip_chunk(i);
  throw_if_error(copy(source_.data(), staged_.data(), source_.size_bytes(), stream_.view()));
  throw_if_error(synchronize(stream_.view()));
}

// Nothing is unmapped under a kernel.
GpuEnd::~GpuEnd() {
  guard_.abort();
  (void)synchronize(stream_.view());
}

Status GpuEnd::begin(const DeviceCommand& command) {
  times_us_.clear();
  std::memset(staged_.data(), 0, staged_.size_bytes());
  LAMINA_RETURN_IF_ERROR(copy(sink_.data(), staged_.data(), sink_.size_bytes(), stream_.view()));
  LAMINA_RETURN_IF_ERROR(copy(cycles_.data(), staged_.data(), sizeof(uint64_t), stream_.view()));
  LAMINA_RETURN_IF_ERROR(link_.clear_inbox());
  return guard_.begin_epoch(command.epoch);
}

Status GpuEnd::run(const DeviceCommand& command) {
  LAMINA_RETURN_IF_ERROR(command.kind.drive == Drive::kGraph ? run_graph(command)
                                                             : run_persistent(command));
  return check_sink(command);
}

Status GpuEnd::wait() {
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  return guard_.status();
}

Status GpuEnd::run_persistent(const DeviceCommand& command) {
  LAMINA_RETURN_IF_ERROR(enqueue_persistent(command));
  LAMINA_RETURN_IF_ERROR(wait());
  return asks_ ? read_times(command) : Status();
}

Status GpuEnd::enqueue_persistent(const DeviceCommand& command) {
  Words& words = words_in(words_);
  RoundTrips trips;
  trips.step = guard_.view();
  trips.outbox = link_.outbox(0);
  trips.inbox = link_.inbox(0);
  trips.plan = command.plan();
  trips.source = reinterpret_cast<const Chunk*>(source_.data());
  trips.sink = reinterpret_cast<Chunk*>(sink_.data());
  trips.num_rounds = command.count;
  trips.asks = asks_;
  trips.meeting = &words.meeting;
  trips.cycles = reinterpret_cast<uint64_t*>(cycles_.data());
  trips.num_cycles = kMaxTrips;
  trips.span = &words.span;
  return enqueue(trips, stream_.view());
}

// Where what came is. In graphs as with workers: who answers reads a pushed message where it lies.
Chunk* GpuEnd::place_of(const DeviceCommand& command) const {
  const bool stays = !asks_ && command.kind.drive == Drive::kGraph &&
                     command.kind.form == cuda_p2p::Form::kPushed &&
                     link_.place() == cuda_p2p::Place::kGpuMemory;
  return stays ? link_.inbox(0).payload : reinterpret_cast<Chunk*>(sink_.data());
}

// Of the last round trip; all have the same content.
Status GpuEnd::check_sink(const DeviceCommand& command) {
  const size_t size_bytes = command.plan().num_chunks * sizeof(Chunk);
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), place_of(command), size_bytes, stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  return check_trip_chunks(reinterpret_cast<const Chunk*>(staged_.data()),
                           command.plan().num_chunks);
}

// Cycles as microseconds: by what the GPU's clock says of the whole. The first tenth is left out.
Status GpuEnd::read_times(const DeviceCommand& command) {
  const uint64_t count = std::min(command.count, kMaxTrips);
  auto* const cycles = reinterpret_cast<uint64_t*>(staged_.data() + sizeof(Words));
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), words_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(copy(cycles, cycles_.data(), count * sizeof(uint64_t), stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  const ClockSpan& span = words_in(staged_).span;
  const double us_of_cycle = static_cast<double>(span.ns) * 1e-3 / static_cast<double>(span.cycles);
  for (uint64_t i = count / 10; i < count; ++i) {
    times_us_.push_back(static_cast<double>(cycles[i]) * us_of_cycle);
  }
  return {};
}

// A step of kGraphTrips round trips, messages 1, 2, ... of it.
Status GpuEnd::enqueue_trips(const DeviceCommand& command) {
  cuda_p2p::Transfers transfers;
  transfers.step = guard_.view();
  transfers.num_messages = 1;
  cuda_p2p::Transfer& transfer = transfers.messages[0];
  transfer.plan = command.plan();
  transfer.rows = {.row_chunks = transfer.plan.num_chunks,
                   .stride_chunks = transfer.plan.num_chunks};
  for (uint32_t half = 0; half < 2 * kGraphTrips; ++half) {
    const bool sends = (half % 2 == 0) == asks_;
    transfer.use = half / 2 + 1;
    transfer.slot = sends ? link_.outbox(0) : link_.inbox(0);
    transfer.rows.data = sends ? reinterpret_cast<Chunk*>(source_.data()) : place_of(command);
    if (transfer.rows.data == link_.inbox(0).payload) transfer.rows.data = nullptr;
    LAMINA_RETURN_IF_ERROR(sends ? cuda_p2p::send(transfers, stream_.view())
                                 : cuda_p2p::receive(transfers, stream_.view()));
  }
  return cuda_p2p::advance(transfers.step, kGraphTrips, stream_.view());
}

Status GpuEnd::run_graph(const DeviceCommand& command) {
  const auto trips = [&] { return enqueue_trips(command); };
  LAMINA_RETURN_IF_ERROR(trips());
  LAMINA_RETURN_IF_ERROR(wait());
  LAMINA_ASSIGN_OR_RETURN(const GpuGraph graph, GpuGraph::capture(stream_.view(), trips));
  LAMINA_ASSIGN_OR_RETURN(times_us_, time_replays(graph, command.count, stream_.view()));
  for (double& time_us : times_us_) time_us /= kGraphTrips;
  return guard_.status();
}

}  // namespace lamina::measure
