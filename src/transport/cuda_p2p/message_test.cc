// The protocol on threads of the host: what is sent is what is received, in both forms, with slots
// used again; and whatever goes wrong ends a wait. The tsan preset proves the orders that the
// release word, the count before it, and the marks promise.
#include "transport/cuda_p2p/message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#include "transport/cuda_p2p/host_memory.h"
#include "transport/cuda_p2p/slots.h"
#include "transport/cuda_p2p/testing/pattern.h"

namespace lamina::cuda_p2p {
namespace {

constexpr uint64_t kPatienceNs = 60'000'000'000;

// A region in this process.
class Region {
 public:
  Region(std::vector<uint32_t> capacities, const Limits& limits)
      : memory_(region_bytes(capacities, limits) / sizeof(SlotWords) + 1),
        slots_(slot_views(reinterpret_cast<std::byte*>(memory_.data()), capacities, limits)) {}

  [[nodiscard]] const SlotView& slot(uint32_t idx) const { return slots_[idx]; }

 private:
  std::vector<SlotWords> memory_;
  std::vector<SlotView> slots_;
};

struct Step {
  StepState state{};
  StepControl control{};

  [[nodiscard]] StepView view(uint64_t max_wait_ns = kPatienceNs) {
    return {&state, &control, max_wait_ns};
  }
  [[nodiscard]] WaitError error() const {
    return static_cast<WaitError>(HostMemory::load_acquire(&control.error));
  }
};

using testing::pattern;

auto pattern_source(Stamp stamp) {
  return [stamp](uint32_t i, auto& unit) { testing::fill(unit, stamp, i); };
}

// Counts the units that are not those of the message.
auto pattern_sink(Stamp stamp, uint32_t& wrong) {
  return [stamp, &wrong](uint32_t i, const auto& unit) {
    auto wanted = unit;
    testing::fill(wanted, stamp, i);
    if (unit != wanted) ++wrong;
  };
}

void send(const SlotView& slot, const Plan& plan, Stamp stamp) {
  send_message<HostMemory>(OneThread(), slot, plan, stamp, nullptr, pattern_source(stamp));
}

// Whether it came, and all of it is right.
bool receive(const SlotView& slot, const Plan& plan, Stamp stamp, const StepView& step) {
  uint32_t wrong = 0;
  const auto sink = pattern_sink(stamp, wrong);
  return receive_message<HostMemory>(OneThread(), slot, plan, stamp, step, sink) && wrong == 0;
}

// Small ones of both forms in several parts.
constexpr Limits kSmall{.lines_bytes = 256, .lines_part_bytes = 64, .pushed_part_bytes = 128};
constexpr uint32_t kCapacity = 2048;

TEST(Protocol, StampsGrowOverEpochsAndMarksDiffer) {
  EXPECT_LT(make_stamp(1, (uint64_t{1} << kCountBits) - 1), make_stamp(2, 0));
  EXPECT_EQ(epoch_of(make_stamp(7, 123)), 7U);
  for (const uint32_t epoch : {1U, 2U, 254U, 255U, 256U, 510U}) {
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{0xFFFFFF}, uint64_t{1} << 24}) {
      const Stamp stamp = make_stamp(epoch, count);
      EXPECT_NE(mark_of(stamp), 0U);
      EXPECT_NE(mark_of(stamp), mark_of(stamp + 1));
      EXPECT_NE(mark_of(stamp), mark_of(make_stamp(epoch + 1, count)));
    }
  }
}

TEST(Protocol, ALineIsMarkedWhenBothHalvesAre) {
  const HalfChunk half = {{3, 0xFFFFFFFF}};
  const uint32_t mark = mark_of(make_stamp(1, 5));
  const Line line = pack_line(half, mark);
  EXPECT_EQ(unpack_line(line), half);
  EXPECT_TRUE(has_mark(line, mark));
  EXPECT_FALSE(has_mark(line, mark + 1));
  EXPECT_FALSE(has_mark(Line{line.halves[0], 0}, mark));
  EXPECT_FALSE(has_mark(Line{0, line.halves[1]}, mark));
}

// Whatever the distance between the stamps of a slot.
TEST(Protocol, NoMarkGrowsOld) {
  for (const uint64_t distance : {1, 2, 3, 40, 80, 81, 160, 1000, 4096}) {
    for (const uint32_t num_chunks : {1U, 7U, 2048U}) {
      std::vector<bool> refreshed(num_chunks);
      for (uint64_t i = 0; i < 64 * uint64_t{num_chunks}; ++i) {
        refreshed.at(refreshed_chunk(make_stamp(3, 1 + i * distance), num_chunks)) = true;
      }
      EXPECT_EQ(std::count(refreshed.begin(), refreshed.end(), false), 0)
          << num_chunks << " chunks, every " << distance;
    }
  }
}

TEST(Protocol, PartsAreTheWholeMessage) {
  const Limits limits{};
  for (uint32_t size = 1; size < (6U << 20); size += 1 + size / 3) {
    const Plan plan = make_plan(size, limits);
    EXPECT_EQ(plan.form, size <= limits.lines_bytes ? Form::kLines : Form::kPushed);
    ASSERT_GE(plan.num_parts, 1U);
    ASSERT_LE(plan.num_parts, kMaxParts);
    EXPECT_EQ(plan.part_begin(0), 0U);
    for (uint32_t part = 0; part < plan.num_parts; ++part) {
      EXPECT_LT(plan.part_begin(part), plan.part_end(part)) << size;
    }
    EXPECT_EQ(plan.part_end(plan.num_parts - 1), chunks_of(size));
  }
}

TEST(Protocol, SlotsAreApart) {
  const std::vector<uint32_t> capacities = {1, 5000, 300};
  std::vector<SlotWords> memory(region_bytes(capacities, kSmall) / sizeof(SlotWords) + 1);
  auto* const begin = reinterpret_cast<std::byte*>(memory.data());
  const auto slots = slot_views(begin, capacities, kSmall);
  const std::byte* end = begin;
  for (const SlotView& slot : slots) {
    EXPECT_GE(reinterpret_cast<std::byte*>(slot.words), end);
    EXPECT_GE(reinterpret_cast<std::byte*>(slot.lines),
              reinterpret_cast<std::byte*>(slot.words + 1));
    EXPECT_GE(reinterpret_cast<std::byte*>(slot.payload),
              reinterpret_cast<std::byte*>(slot.lines_of(slot.num_line_chunks)));
    end = reinterpret_cast<std::byte*>(slot.payload + slot.num_chunks);
  }
  EXPECT_LE(end, begin + region_bytes(capacities, kSmall));
}

TEST(Message, EverySizeArrives) {
  const Region region({kCapacity}, kSmall);
  Step step;
  for (uint32_t size = 1; size <= kCapacity; size += 13) {
    const Plan plan = make_plan(size, kSmall);
    send(region.slot(0), plan, make_stamp(1, size));
    ASSERT_TRUE(receive(region.slot(0), plan, make_stamp(1, size), step.view())) << size;
  }
}

TEST(Message, AWaitWithoutAMessageTimesOut) {
  for (const uint32_t size : {16U, kCapacity}) {
    const Region region({kCapacity}, kSmall);
    Step step;
    const Plan plan = make_plan(size, kSmall);
    EXPECT_FALSE(receive(region.slot(0), plan, make_stamp(1, 9), step.view(1'000'000)));
    EXPECT_EQ(step.error(), WaitError::kTimedOut);
    EXPECT_EQ(step.control.awaited, make_stamp(1, 9));
  }
}

// Blocks of one thread, whichever comes last; more blocks than parts too, some of which have none.
TEST(Message, APushedOneIsReleasedByTheBlockThatStoresLast) {
  const Plan plan = make_plan(kCapacity, kSmall);
  const Region region({kCapacity}, kSmall);
  Step step;
  Stamp stamp = 0;
  for (const uint32_t num_blocks : {1U, 3U, plan.num_parts, plan.num_parts + 2}) {
    const uint32_t num_senders = std::min(num_blocks, plan.num_parts);
    for (uint32_t last = 0; last < num_senders; ++last) {
      ++stamp;
      for (uint32_t i = 1; i <= num_blocks; ++i) {
        const OneThread team = {.block = (last + i) % num_blocks, .num_blocks = num_blocks};
        EXPECT_LT(region.slot(0).words->released, stamp);
        send_message<HostMemory>(
            team, region.slot(0), plan, stamp, step.state.num_stored, pattern_source(stamp));
      }
      EXPECT_EQ(step.state.num_stored[0], 0U);
      EXPECT_TRUE(receive(region.slot(0), plan, stamp, step.view()));
    }
  }
}

// Every block and thread of a grid in turn, also those that are more than there are lines.
template <typename Body>
void for_each_thread(uint32_t num_blocks, uint32_t num_threads, const Body& body) {
  for (uint32_t block = 0; block < num_blocks; ++block) {
    for (uint32_t thread = 0; thread < num_threads; ++thread) {
      body(OneThread{
          .block = block, .num_blocks = num_blocks, .thread = thread, .num_threads = num_threads});
    }
  }
}

TEST(Message, ThreadsWithALineEachMoveThoseThatOthersDo) {
  const Region region({kCapacity}, kSmall);
  const SlotView& slot = region.slot(0);
  Step step;
  const StepView view = step.view();
  for (uint32_t size = 1; size <= kSmall.lines_bytes; ++size) {
    const Plan plan = make_plan(size, kSmall);
    const uint32_t num_blocks = plan.num_parts + 1;
    const uint32_t num_threads = plan.part_units() + size % 3;
    ASSERT_TRUE(has_thread_per_line(plan, num_blocks, num_threads));
    const Stamp sent = make_stamp(1, 2 * size);
    for_each_thread(num_blocks, num_threads, [&](const OneThread& team) {
      send_line<HostMemory>(team, slot, plan, sent, pattern_source(sent));
    });
    EXPECT_TRUE(receive(slot, plan, sent, view)) << size;

    const Stamp received = sent + 1;
    send(slot, plan, received);
    std::vector<uint32_t> num_taken(kLinesOfChunk * plan.num_chunks);
    for_each_thread(num_blocks, num_threads, [&](const OneThread& team) {
      uint32_t wrong = 0;
      const auto check = pattern_sink(received, wrong);
      const auto sink = [&](uint32_t i, const HalfChunk& half) {
        ++num_taken.at(i);
        check(i, half);
      };
      EXPECT_TRUE(receive_line<HostMemory>(team, slot, plan, received, view, sink));
      EXPECT_EQ(wrong, 0U) << size;
    });
    EXPECT_TRUE(std::ranges::all_of(num_taken, [](uint32_t count) { return count == 1; })) << size;
  }
}

TEST(Message, ThreadsWithALineEachAreTooFewForOthers) {
  const Plan lines = make_plan(kSmall.lines_bytes, kSmall);
  EXPECT_FALSE(has_thread_per_line(lines, lines.num_parts - 1, lines.part_units()));
  EXPECT_FALSE(has_thread_per_line(lines, lines.num_parts, lines.part_units() - 1));
  const Plan pushed = make_plan(kCapacity, kSmall);
  EXPECT_FALSE(has_thread_per_line(pushed, pushed.num_parts, pushed.part_units()));
}

// The tail of a long message is under a short one's, and what an earlier epoch sent is there too.
TEST(Message, WhatIsOldIsNotTaken) {
  for (const uint32_t size : {kSmall.lines_bytes, kCapacity}) {
    const Region region({kCapacity}, kSmall);
    const Plan plan = make_plan(size, kSmall);
    send(region.slot(0), plan, make_stamp(1, 7));
    send(region.slot(0), make_plan(16, kSmall), make_stamp(2, 6));
    Step step;
    EXPECT_FALSE(receive(region.slot(0), plan, make_stamp(2, 7), step.view(1'000'000)));
    EXPECT_EQ(step.error(), WaitError::kTimedOut);
  }
}

TEST(Message, AnotherSizeIsAnError) {
  for (const uint32_t size : {32U, 1024U}) {
    const Region region({kCapacity}, kSmall);
    Step step;
    send(region.slot(0), make_plan(size + 16, kSmall), 1);
    EXPECT_FALSE(receive(region.slot(0), make_plan(size, kSmall), 1, step.view()));
    EXPECT_EQ(step.error(), WaitError::kWrongSize);
    EXPECT_EQ(step.control.seen, chunks_of(size + 16));
  }
}

TEST(Message, ALineOfItsOwnTimesOutAndTellsAnotherSize) {
  const Region region({kCapacity}, kSmall);
  const Plan plan = make_plan(16, kSmall);
  const OneThread first = {.num_threads = plan.part_units()};
  const auto sink = [](uint32_t, const HalfChunk&) {};
  Step late;
  EXPECT_FALSE(
      receive_line<HostMemory>(first, region.slot(0), plan, 1, late.view(1'000'000), sink));
  EXPECT_EQ(late.error(), WaitError::kTimedOut);
  Step other;
  send(region.slot(0), make_plan(32, kSmall), 1);
  EXPECT_FALSE(receive_line<HostMemory>(first, region.slot(0), plan, 1, other.view(), sink));
  EXPECT_EQ(other.error(), WaitError::kWrongSize);
}

// Also of those that are to come: the first error stands.
TEST(Message, TheHostEndsWaits) {
  const Region region({kCapacity}, kSmall);
  Step step;
  const Plan plan = make_plan(16, kSmall);
  std::thread host([&] { HostMemory::store_relaxed(&step.control.abort, 1); });
  EXPECT_FALSE(receive(region.slot(0), plan, 1, step.view()));
  host.join();
  EXPECT_EQ(step.error(), WaitError::kAborted);
  EXPECT_FALSE(receive(region.slot(0), make_plan(kCapacity, kSmall), 2, step.view()));
  EXPECT_EQ(step.control.awaited, 1U);
}

// As threads of a GPU that leave the far looks to another one.
struct Follower : HostMemory {
  static bool is_leader() { return false; }
  static void pause(uint32_t looks) {
    num_looks = looks;
    HostMemory::pause(looks);
  }
  static inline std::atomic<uint32_t> num_looks{0};
};

TEST(Message, WhoDoesNotLeadEndsWithThoseWhoDo) {
  for (const uint32_t size : {16U, kCapacity}) {
    const Region region({kCapacity}, kSmall);
    const Plan plan = make_plan(size, kSmall);
    Step step;
    HostMemory::store_relaxed(&step.control.abort, 1);
    std::atomic<bool> has_ended = false;
    Follower::num_looks = 0;
    std::thread follower([&] {
      const auto sink = [](uint32_t, const auto&) {};
      const StepView view = step.view(0);
      EXPECT_FALSE(receive_message<Follower>(
          OneThread(), region.slot(0), plan, make_stamp(1, 1), view, sink));
      has_ended = true;
    });
    while (Follower::num_looks < 4 * HostMemory::kLooksPerLimits) std::this_thread::yield();
    EXPECT_FALSE(has_ended);
    EXPECT_FALSE(receive(region.slot(0), plan, make_stamp(1, 2), step.view()));
    follower.join();
    EXPECT_EQ(step.error(), WaitError::kAborted);
    EXPECT_EQ(step.control.awaited, make_stamp(1, 2));
  }
}

TEST(Message, ARotationSendsNoMoreThanItHasSlotsFor) {
  constexpr Rotation kRotation{.num_slots = 3};
  EXPECT_EQ(kRotation.reply_before(3), 0U);
  for (uint64_t message = 4; message < 20; ++message) {
    EXPECT_EQ(kRotation.reply_before(message), message - 3);
    EXPECT_EQ(kRotation.slot_of(message), kRotation.slot_of(kRotation.reply_before(message)));
  }
}

// Threads that stand for those of a grid, one of a block.
struct ThreadTeam {
  uint32_t block = 0;
  uint32_t num_blocks = 1;
  uint32_t thread = 0;
  uint32_t num_threads = 1;
  std::barrier<>* barrier = nullptr;      // of the block
  std::atomic<bool>* dissents = nullptr;  // whether one of the block said no

  void sync() const { barrier->arrive_and_wait(); }
  // There is no other meeting after a no: a conversation has ended then.
  [[nodiscard]] bool all(bool mine) const {
    if (!mine) dissents->store(true);
    sync();
    return !dissents->load();
  }
};

// One side of a conversation, as the kernels of testing/conversation.cu make it.
class Side {
 public:
  static constexpr uint32_t kNumBlocks = 3;
  static constexpr uint32_t kNumThreads = 2;
  static constexpr Rotation kRotation{.num_slots = 2};
  static constexpr uint64_t kMessages = 200;

  // Messages of one size, which all blocks have a part of; or, of 0, of all sizes. All blocks meet
  // after each, but for pushed ones of one size: those are released once all blocks have read the
  // message that they answer.
  Side(const Region& inbox, const Region& outbox, uint32_t size_bytes)
      : inbox_(inbox), outbox_(outbox), size_bytes_(size_bytes) {}

  // Requests as many as there are slots for, each once the reply before it has come.
  void ask() {
    run([this](const ThreadTeam& team) {
      for (uint64_t n = 1; n <= kMessages + kRotation.num_slots; ++n) {
        const uint64_t reply = kRotation.reply_before(n);
        if (reply != 0 && !take(team, reply)) return false;
        if (n <= kMessages) give(team, n);
      }
      return true;
    });
  }
  void answer() {
    run([this](const ThreadTeam& team) {
      for (uint64_t n = 1; n <= kMessages; ++n) {
        if (!take(team, n)) return false;
        give(team, n);
      }
      return true;
    });
  }

 private:
  [[nodiscard]] Plan plan_of(uint64_t n) const {
    const uint32_t any_bytes = 1 + static_cast<uint32_t>(n * 397 % kCapacity);
    return make_plan(size_bytes_ != 0 ? size_bytes_ : any_bytes, kSmall);
  }
  void give(const ThreadTeam& team, uint64_t n) {
    const Stamp stamp = make_stamp(1, n);
    const uint32_t slot = kRotation.slot_of(n);
    send_message<HostMemory>(team,
                             outbox_.slot(slot),
                             plan_of(n),
                             stamp,
                             &step_.state.num_stored[slot],
                             pattern_source(stamp));
  }
  bool take(const ThreadTeam& team, uint64_t n) {
    const Stamp stamp = make_stamp(1, n);
    const SlotView& slot = inbox_.slot(kRotation.slot_of(n));
    const Plan plan = plan_of(n);
    uint32_t wrong = 0;
    const auto sink = pattern_sink(stamp, wrong);
    const bool came = receive_message<HostMemory>(team, slot, plan, stamp, step_.view(), sink);
    EXPECT_EQ(wrong, 0U) << "message " << n;
    if (came && !(plan.form == Form::kPushed && size_bytes_ != 0)) grid_.arrive_and_wait();
    return came;
  }
  template <typename Body>
  void run(const Body& body) {
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < kNumBlocks * kNumThreads; ++i) {
      const uint32_t block = i / kNumThreads;
      const ThreadTeam team = {.block = block,
                               .num_blocks = kNumBlocks,
                               .thread = i % kNumThreads,
                               .num_threads = kNumThreads,
                               .barrier = &barriers_[block],
                               .dissents = &dissents_[block]};
      threads.emplace_back([&body, team] { EXPECT_TRUE(body(team)); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  const Region& inbox_;
  const Region& outbox_;
  uint32_t size_bytes_;
  Step step_;
  std::barrier<> barriers_[kNumBlocks]{
      std::barrier<>(kNumThreads), std::barrier<>(kNumThreads), std::barrier<>(kNumThreads)};
  std::atomic<bool> dissents_[kNumBlocks]{};
  std::barrier<> grid_{kNumBlocks * kNumThreads};
};

// Of no size: all sizes. Else of a part for each block and more, as lines and pushed.
class Conversation : public ::testing::TestWithParam<uint32_t> {};

INSTANTIATE_TEST_SUITE_P(Sizes,
                         Conversation,
                         ::testing::Values(0, kSmall.lines_bytes, 1000, kCapacity));

TEST_P(Conversation, SlotsAreUsedAgainOnceAnswered) {
  const Region requests({kCapacity, kCapacity}, kSmall);
  const Region replies({kCapacity, kCapacity}, kSmall);
  Side asking(replies, requests, GetParam());
  Side answering(requests, replies, GetParam());
  std::thread other([&] { answering.answer(); });
  asking.ask();
  other.join();
}

}  // namespace
}  // namespace lamina::cuda_p2p
