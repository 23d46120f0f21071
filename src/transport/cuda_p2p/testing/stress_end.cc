#include "transport/cuda_p2p/testing/stress_end.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"
#include "device/cuda/memory.h"
#include "transport/cuda_p2p/testing/pattern.h"
#include "transport/measure/commands.h"

namespace lamina::cuda_p2p::testing {
namespace {

constexpr uint32_t kMaxStressBytes = 256 << 10;
constexpr Limits kStressLimits{.lines_bytes = 128 << 10};

// What lies in StressEnd::words_.
struct Words {
  uint64_t meeting;
  uint64_t wrong_words;
  uint64_t seen_words;
};

Words& words_in(const Buffer& buffer) {
  return *reinterpret_cast<Words*>(buffer.data());
}

LinkConfig stress_link(Device device, bool asks) {
  const std::vector<uint32_t> slots(kStressSlots, kMaxStressBytes);
  return {.self = {.id = asks ? 1U : 2U, .epoch = 1},
          .peer = {.id = asks ? 2U : 1U, .epoch = 1},
          .device = device,
          .place = Place::kGpuMemory,
          .receive_slots = slots,
          .send_slots = slots,
          .limits = kStressLimits};
}

uint64_t chunks_of_messages(uint64_t num_messages) {
  uint64_t total = 0;
  for (uint64_t n = 1; n <= num_messages; ++n) {
    total += chunks_of(stress_bytes(n, kMaxStressBytes));
  }
  return total;
}

}  // namespace

StressEnd::StressEnd(Device device, bool asks, int socket)
    : asks_(asks),
      stream_(device),
      link_(stress_link(device, asks), socket, Deadline::after(measure::kSetUpTime)),
      guard_(stream_.view(), measure::kMaxWait),
      words_(MemoryKind::kCuda, sizeof(Words)),
      staged_(MemoryKind::kPinnedHost, sizeof(Words)) {}

// Nothing is unmapped under a kernel.
StressEnd::~StressEnd() {
  guard_.abort();
  (void)synchronize(stream_.view());
}

Status StressEnd::begin(const StressCommand& command) {
  words_in(staged_) = Words{};
  LAMINA_RETURN_IF_ERROR(copy(words_.data(), staged_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(link_.clear_inbox());
  return guard_.begin_epoch(command.epoch);
}

Stress StressEnd::stress_of(const StressCommand& command) {
  Stress stress;
  stress.step = guard_.view();
  for (SlotIdx i = 0; i < kStressSlots; ++i) {
    stress.outboxes[i] = link_.outbox(i);
    stress.inboxes[i] = link_.inbox(i);
  }
  stress.limits = kStressLimits;
  stress.max_bytes = kMaxStressBytes;
  stress.num_messages = command.num_requests;
  stress.faulty_message = asks_ ? command.faulty_message : 0;
  stress.asks = asks_;
  stress.meeting = &words_in(words_).meeting;
  stress.wrong_words = &words_in(words_).wrong_words;
  stress.seen_words = &words_in(words_).seen_words;
  return stress;
}

Status StressEnd::run(const StressCommand& command) {
  LAMINA_RETURN_IF_ERROR(enqueue(stress_of(command), stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  LAMINA_RETURN_IF_ERROR(guard_.status());
  return check_words(command);
}

Status StressEnd::check_words(const StressCommand& command) {
  LAMINA_RETURN_IF_ERROR(copy(staged_.data(), words_.data(), sizeof(Words), stream_.view()));
  LAMINA_RETURN_IF_ERROR(synchronize(stream_.view()));
  const Words& words = words_in(staged_);
  const uint64_t wanted =
      chunks_of_messages(command.num_requests) * (sizeof(Chunk) / sizeof(uint32_t));
  if (words.seen_words != wanted) {
    return data_loss(fmt::format("{} words were compared, {} were sent", words.seen_words, wanted));
  }
  if (words.wrong_words != 0) return data_loss(fmt::format("{} wrong words", words.wrong_words));
  return {};
}

int run_stress_peer() {
  try {
    const Device device = {DeviceKind::kCuda, cuda::num_devices() > 1 ? 1 : 0};
    cuda::use_device(device);
    StressEnd end(device, false, measure::kPeerSocket);
    measure::obey<StressCommand>(end, measure::kPeerSocket);
  } catch (const Error& error) {
    if (error.code() == StatusCode::kUnavailable) return 0;
    std::fprintf(stderr, "peer: %s\n", error.what());
  }
  return 1;
}

}  // namespace lamina::cuda_p2p::testing
