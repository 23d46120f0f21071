#include "transport/cuda_p2p/testing/talker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "device/cuda/memory.h"
#include "transport/cuda_p2p/host_messages.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/testing/pattern.h"
#include "transport/cuda_p2p/testing/peer_process.h"
#include "transport/cuda_p2p/testing/replay_times.h"

namespace lamina::cuda_p2p::testing {
namespace {

constexpr uint64_t kMaxTimes = 100'000;
constexpr Duration kSetUp = std::chrono::seconds(60);

// What lies in GpuTalker::words_.
struct Words {
  uint64_t meeting;
  uint64_t wrong_words;
  uint64_t seen_chunks;
  ClockSpan span;
};

Words& words_in(const Buffer& buffer) {
  return *reinterpret_cast<Words*>(buffer.data());
}

uint64_t stress_chunks(uint64_t num_messages) {
  uint64_t total = 0;
  for (uint64_t n = 1; n <= num_messages; ++n) {
    total += chunks_of(stress_bytes(n, kMaxStressBytes));
  }
  return total;
}

}  // namespace

Plan Command::plan() const {
  Limits limits = kTalkLimits;
  limits.lines_bytes = form == Form::kLines ? kTalkLimits.lines_bytes : 0;
  if (part_bytes != 0) limits.lines_part_bytes = limits.pushed_part_bytes = part_bytes;
  return make_plan(size_bytes, limits);
}

LinkConfig talk_config(Device device, Place place, bool asks) {
  LinkConfig config;
  config.self = {.id = asks ? 1U : 2U, .epoch = 1};
  config.peer = {.id = asks ? 2U : 1U, .epoch = 1};
  config.device = device;
  config.place = place;
  config.receive_slots.assign(1 + kStressSlots, kMaxStressBytes);
  config.receive_slots[0] = kMaxTripBytes;
  config.send_slots = config.receive_slots;
  config.limits = kTalkLimits;
  return config;
}

GpuTalker::GpuTalker(Device device, Place place, bool asks, int socket, Duration max_wait)
    : asks_(asks),
      stream_(device),
      link_(talk_config(device, place, asks), socket, Deadline::after(kSetUp)),
      guard_(stream_.view(), max_wait),
      source_(MemoryKind::kCuda, kMaxTripBytes),
      sink_(MemoryKind::kCuda, kMaxTripBytes),
      words_(MemoryKind::kCuda, sizeof(Words)),
      cycles_(MemoryKind::kCuda, kMaxTimes * sizeof(uint64_t)),
      staged_(MemoryKind::kPinnedHost,
              std::max<size_t>(kMaxTripBytes, cycles_.size_bytes() + sizeof(Words))) {
  auto* const chunks = reinterpret_cast<Chunk*>(staged_.data());
  for (uint32_t i = 0; i < chunks_of(kMaxTripBytes); ++i) chunks[i] = pattern(0, i);
  throw_if_error(copy(source_.data(), staged_.data(), kMaxTripBytes, stream_.view()));
  throw_if_error(synchronize(stream_.view()));
}

// Nothing is unmapped under a kernel.
GpuTalker::~GpuTalker() {
  guard_.abort();
  (void)synchronize(stream_.view());
}

Status GpuTalker::begin(const Command& command) {
  times_us_.clear();
  std::memset(staged_.data(), 0, kMaxTripBytes);
  LAMINA_RETURN_IF_ERROR(copy(sink_.data(), staged_.data(), kMaxTripBytes, stream_.view()));
  LAMINA_RETURN_IF_ERROR(copy(cycles_.data(), staged_.data(), sizeof(uint64_t), stream_.view()));
  LAMINA_RETURN_IF_ERROR(link_.clear_inbox());
  return guard_.begin_epoch(command.epoch);
}

Status GpuTalker::run(const Command& command) {
  switch (command.op) {
    case Op::kPersistent:
      LAMINA_RETURN_IF_ERROR(enqueue_persistent(command));
      LAMINA_RETURN_IF_ERROR(wait());
      if (asks_) LAMINA_RETURN_IF_ERROR(read_times(command));
      return check_sink(command);
    case Op::kGraph:
      LAMINA_RETURN_IF_ERROR(run_graph(command));
      return check_sink(command);
    case Op::kStress:
      return run_stress(command);
  }
  return invalid_argument("an unknown command");
}

// By a stream of its own, beside the kernel that writes there.
Status GpuTalker::wait_for_first_round(Deadline deadline) {
  const GpuStream watching(stream_.view().device());
  const auto& cycles = *reinterpret_cast<const uint64_t*>(staged_.data());
  while (!deadline.has_passed()) {
    LAMINA_RETURN_IF_ERROR(copy(staged_.data(), cycles_.data(), sizeof(uint64_t), watching.view()));
    LAMINA_RETURN_IF_ERROR(synchronize(watching.view()));
    if (cycles != 0) return {};
  }
  return deadline_exceeded("no round trip was made");
}

Status GpuTalker::wait() {
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  return guard_.status();
}

Status GpuTalker::enqueue_persistent(const Command& command) {
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
  trips.num_cycles = kMaxTimes;
  trips.span = &words.span;
  return enqueue(trips, stream_.view());
}

// Of the last round trip; all have the same content. The stress test has others.
Status GpuTalker::check_sink(const Command& command) {
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), sink_.data(), kMaxTripBytes, stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  const auto* const chunks = reinterpret_cast<const Chunk*>(staged_.data());
  for (uint32_t i = 0; i < command.plan().num_chunks; ++i) {
    if (chunks[i] != pattern(0, i)) return data_loss(fmt::format("chunk {} is wrong", i));
  }
  return {};
}

// Cycles as microseconds: by what the GPU's clock says of the whole. The first tenth is left out.
Status GpuTalker::read_times(const Command& command) {
  const uint64_t count = std::min(command.count, kMaxTimes);
  auto* const cycles = reinterpret_cast<uint64_t*>(staged_.data() + sizeof(Words));
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), words_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(copy(cycles, cycles_.data(), count * sizeof(uint64_t), stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  const ClockSpan& span = words_in(staged_).span;
  const double us_of_cycle = static_cast<double>(span.ns) * 1e-3 / static_cast<double>(span.cycles);
  for (uint64_t i = count / 10; i < count; ++i) {
    times_us_.push_back(static_cast<double>(cycles[i]) * us_of_cycle);
  }
  std::sort(times_us_.begin(), times_us_.end());
  return {};
}

// A step of kGraphRounds round trips, messages 1, 2, ... of it.
Status GpuTalker::enqueue_rounds(const Command& command) {
  Transfers transfers;
  transfers.step = guard_.view();
  transfers.num_messages = 1;
  Transfer& transfer = transfers.messages[0];
  transfer.plan = command.plan();
  transfer.rows = {.row_chunks = transfer.plan.num_chunks,
                   .stride_chunks = transfer.plan.num_chunks};
  for (uint32_t half = 0; half < 2 * kGraphRounds; ++half) {
    const bool sends = (half % 2 == 0) == asks_;
    transfer.use = half / 2 + 1;
    transfer.slot = sends ? link_.outbox(0) : link_.inbox(0);
    transfer.rows.data = reinterpret_cast<Chunk*>((sends ? source_ : sink_).data());
    LAMINA_RETURN_IF_ERROR(sends ? send(transfers, stream_.view())
                                 : receive(transfers, stream_.view()));
  }
  return advance(transfers.step, kGraphRounds, stream_.view());
}

Status GpuTalker::run_graph(const Command& command) {
  LAMINA_RETURN_IF_ERROR(enqueue_rounds(command));
  LAMINA_RETURN_IF_ERROR(wait());
  LAMINA_ASSIGN_OR_RETURN(const GpuGraph graph, GpuGraph::capture(stream_.view(), [&] {
                            return enqueue_rounds(command);
                          }));
  LAMINA_ASSIGN_OR_RETURN(times_us_, time_replays(graph, command.count, stream_.view()));
  for (double& time_us : times_us_) time_us /= kGraphRounds;
  return guard_.status();
}

Status GpuTalker::run_stress(const Command& command) {
  Stress stress;
  stress.step = guard_.view();
  for (SlotIdx i = 0; i < kStressSlots; ++i) {
    stress.outboxes[i] = link_.outbox(1 + i);
    stress.inboxes[i] = link_.inbox(1 + i);
  }
  stress.limits = kTalkLimits;
  stress.max_bytes = kMaxStressBytes;
  stress.num_messages = command.count;
  stress.faulty_message = asks_ ? command.faulty_message : 0;
  stress.asks = asks_;
  stress.meeting = &words_in(words_).meeting;
  stress.wrong_words = &words_in(words_).wrong_words;
  stress.seen_chunks = &words_in(words_).seen_chunks;
  words_in(staged_) = Words{};
  LAMINA_RETURN_IF_ERROR(copy(words_.data(), staged_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(enqueue(stress, stream_.view()));
  LAMINA_RETURN_IF_ERROR(wait());
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), words_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  wrong_words_ = words_in(staged_).wrong_words;
  const uint64_t seen = words_in(staged_).seen_chunks;
  const uint64_t wanted = stress_chunks(command.count);
  if (seen == wanted) return {};
  return data_loss(fmt::format("{} chunks were compared, {} were sent", seen, wanted));
}

namespace {

// What the peer says of its part.
struct Answer {
  StatusCode code = StatusCode::kOk;
  uint64_t wrong_words = 0;
};

// Answers a GPU from a thread: as many round trips as that makes of the command.
class CpuTalker {
 public:
  CpuTalker(int socket, Duration max_wait)
      : link_(talk_config({}, Place::kHostMemory, false), socket, Deadline::after(kSetUp)),
        guard_(StreamView(pool_), max_wait),
        data_(kMaxTripBytes) {}

  Status begin(const Command& command) {
    LAMINA_RETURN_IF_ERROR(link_.clear_inbox());
    return guard_.begin_epoch(command.epoch);
  }
  Status run(const Command& command) {
    const uint64_t num_rounds =
        command.op == Op::kGraph ? (command.count + 1) * kGraphRounds : command.count;
    const Plan plan = command.plan();
    const std::span<std::byte> message(data_.data(), plan.num_chunks * sizeof(Chunk));
    for (uint64_t n = 1; n <= num_rounds; ++n) {
      const Stamp stamp = make_stamp(command.epoch, n);
      if (!take(link_.inbox(0), plan, stamp, guard_.view(), message).ok()) return guard_.status();
      put(link_.outbox(0), plan, stamp, message);
    }
    return {};
  }
  [[nodiscard]] static uint64_t wrong_words() { return 0; }

 private:
  ThreadPool pool_{1};
  Link link_;
  StepGuard guard_;
  std::vector<std::byte> data_;
};

template <typename Talker>
void obey(Talker& talker) {
  while (true) {
    const auto command = receive_struct<Command>(kPeerSocket);
    Status status = talker.begin(command);
    send_struct(kPeerSocket, Answer{.code = status.code()});
    if (!status.ok()) continue;
    status = talker.run(command);
    if (!status.ok()) std::fprintf(stderr, "peer: %s\n", status.to_string().c_str());
    send_struct(kPeerSocket, Answer{.code = status.code(), .wrong_words = talker.wrong_words()});
  }
}

constexpr Duration kPeerWait = std::chrono::seconds(10);

}  // namespace

Status begin(GpuTalker& talker, int socket, const Command& command) {
  LAMINA_RETURN_IF_ERROR(talker.begin(command));
  send_struct(socket, command);
  if (receive_struct<Answer>(socket).code == StatusCode::kOk) return {};
  return internal_error("the other process could not begin");
}

Status ask(GpuTalker& talker, int socket, const Command& command) {
  LAMINA_RETURN_IF_ERROR(begin(talker, socket, command));
  LAMINA_RETURN_IF_ERROR(talker.run(command));
  const auto answer = receive_struct<Answer>(socket);
  if (answer.code != StatusCode::kOk) return internal_error("the other process has failed");
  if (answer.wrong_words != 0) return data_loss("the other process received wrong words");
  return {};
}

int run_peer(const std::vector<std::string>& arguments) {
  try {
    if (arguments.at(0) == "cpu") {
      CpuTalker talker(kPeerSocket, kPeerWait);
      obey(talker);
    }
    const Device device = {DeviceKind::kCuda, std::stoi(arguments.at(1))};
    cuda::use_device(device);
    const Place place = arguments.at(2) == "gpu-memory" ? Place::kGpuMemory : Place::kHostMemory;
    GpuTalker talker(device, place, false, kPeerSocket, kPeerWait);
    obey(talker);
  } catch (const Error& error) {
    // The socket's end is how it ends.
    if (error.code() == StatusCode::kUnavailable) return 0;
    std::fprintf(stderr, "peer: %s\n", error.what());
  }
  return 1;
}

}  // namespace lamina::cuda_p2p::testing
