#include "base/trace.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace lamina {
namespace {

using nlohmann::json;
using std::chrono::nanoseconds;

class TraceTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  [[nodiscard]] TraceConfig config() const {
    return {.path = path_, .flush_interval = std::chrono::milliseconds(1)};
  }
  [[nodiscard]] std::string text() const { return read_text_file(path_, 1 << 28); }
  // The events of the file, which must be JSON as it stands.
  [[nodiscard]] std::vector<json> events() const { return json::parse(text()).at("traceEvents"); }
  [[nodiscard]] std::vector<json> events(const std::string& phase) const {
    std::vector<json> chosen;
    for (const json& event : events()) {
      if (event.at("ph") == phase) chosen.push_back(event);
    }
    return chosen;
  }
  // "dropped_events", or zero where the file does not speak of them.
  [[nodiscard]] uint64_t num_dropped() const {
    const json last = events().back();
    return last.at("name") == "dropped_events" ? last.at("args").at("num_dropped").get<uint64_t>()
                                               : 0;
  }

  static TimePoint at(int64_t ns) { return TimePoint(nanoseconds(ns)); }

  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("lamina_trace_test_" + std::to_string(::getpid()));
  ManualClock clock_;
};

TEST_F(TraceTest, NamesAndOrdersRows) {
  TraceWriter writer(config(), clock_);
  const TraceRow replica = writer.add_row("model replicas", "replica 0");
  const TraceRow worker = writer.add_row("attention workers", "worker 0");
  const TraceRow second = writer.add_row("model replicas", "replica 1");
  EXPECT_EQ(replica.process, second.process);
  EXPECT_NE(replica.process, worker.process);
  writer.close();
  std::map<std::pair<int, int>, std::map<std::string, json>> metadata;
  for (const json& event : events("M")) {
    EXPECT_EQ(event.at("ts"), 0);
    auto& of_row = metadata[{event.at("pid"), event.at("tid")}];
    of_row[event.at("name")] = *event.at("args").begin();
  }
  using Expected = std::map<std::string, json>;
  EXPECT_EQ(metadata.size(), 5U);
  EXPECT_EQ((metadata[{1, 1}]),
            (Expected{{"process_name", "model replicas"}, {"process_sort_index", 1}}));
  EXPECT_EQ((metadata[{2, 2}]),
            (Expected{{"process_name", "attention workers"}, {"process_sort_index", 2}}));
  EXPECT_EQ((metadata[{second.process, second.thread}]),
            (Expected{{"thread_name", "replica 1"}, {"thread_sort_index", 2}}));
}

TEST_F(TraceTest, SpansBearTimesAndArguments) {
  clock_.advance(nanoseconds(1'000));
  TraceWriter writer(config(), clock_);
  const TraceRow row = writer.add_row("model replicas", "replica 0");
  writer.add_span({.row = row,
                   .name = "slice",
                   .category = "compute",
                   .begin = at(1'001),
                   .end = at(3'000'003),
                   .step = 0,
                   .micro_batch = 1,
                   .layer = 2,
                   .slice = 3,
                   .num_tokens = 4});
  // Begins before the writer does.
  writer.add_span({.row = row, .name = "early", .begin = at(0), .end = at(3'000)});
  writer.add_span({.row = row, .name = "backwards", .begin = at(9'000), .end = at(8'000)});
  writer.close();
  // The whole text: fractions are exact, and "ph" and "ts" come before any name.
  EXPECT_NE(text().find(R"({"ph":"X","ts":0.001,"pid":1,"tid":1000,"dur":2999.002,"cat":"compute",)"
                        R"("name":"slice","args":{"step":0,"micro_batch":1,"layer":2,"slice":3,)"
                        R"("num_tokens":4}})"),
            std::string::npos)
      << text();
  const std::vector<json> spans = events("X");
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[1].at("ts"), 0.0);
  EXPECT_EQ(spans[1].at("dur"), 2.0);
  EXPECT_EQ(spans[1].at("args"), json::object());
  EXPECT_EQ(spans[2].at("ts"), 8.0);
  EXPECT_EQ(spans[2].at("dur"), 0.0);
}

TEST_F(TraceTest, ArrowsJoinRows) {
  TraceWriter writer(config(), clock_);
  const TraceRow from = writer.add_row("model replicas", "replica 0");
  const TraceRow to = writer.add_row("attention workers", "worker 0");
  for (int64_t i = 0; i < 2; ++i) {
    writer.add_arrow(
        {.name = "q", .from_row = from, .from = at(1'000 + i), .to_row = to, .to = at(2'000 + i)});
  }
  writer.close();
  const std::vector<json> starts = events("s");
  const std::vector<json> ends = events("f");
  ASSERT_EQ(starts.size(), 2U);
  ASSERT_EQ(ends.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(starts[i].at("tid"), from.thread);
    EXPECT_EQ(ends[i].at("tid"), to.thread);
    EXPECT_EQ(ends[i].at("bp"), "e");
    for (const char* key : {"id", "cat", "name"}) EXPECT_EQ(starts[i].at(key), ends[i].at(key));
  }
  EXPECT_EQ(ends[1].at("ts"), 2.001);
  EXPECT_NE(starts[0].at("id"), starts[1].at("id"));
}

TEST_F(TraceTest, AnyBytesAreNames) {
  TraceWriter writer(config(), clock_);
  const std::string name =
      "a\"b\\c\nd\te\x01"
      "f\x7f\xff/";
  const TraceRow row = writer.add_row("pool \"1\"", name);
  writer.add_span({.row = row, .name = name, .category = name});
  writer.close();
  const std::string expected =
      "a\"b\\c\nd\te\x01"
      "f?"
      "?/";
  const json span = events("X").at(0);
  EXPECT_EQ(span.at("name"), expected);
  EXPECT_EQ(span.at("cat"), expected);
  EXPECT_EQ(events().at(0).at("args").at("name"), "pool \"1\"");
  EXPECT_EQ(events().at(2).at("args").at("name"), expected);
}

TEST_F(TraceTest, ManyThreadsWriteOneFile) {
  constexpr int kThreads = 4;
  constexpr int kSpans = 20'000;
  TraceConfig many = config();
  many.max_pending = kThreads * kSpans;
  TraceWriter writer(many, clock_);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&writer, i] {
      const TraceRow row = writer.add_row("model replicas", "replica " + std::to_string(i));
      for (int32_t layer = 0; layer < kSpans; ++layer) {
        writer.add_span({.row = row, .name = "slice", .micro_batch = i, .layer = layer});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  writer.close();
  std::map<int, int> next_layer;  // by micro-batch: each thread's spans stand in its order
  std::set<std::pair<int, int>> rows;
  for (const json& span : events("X")) {
    const json& args = span.at("args");
    ASSERT_EQ(args.at("layer"), next_layer[args.at("micro_batch").get<int>()]++);
    rows.emplace(args.at("micro_batch").get<int>(), span.at("tid").get<int>());
  }
  EXPECT_EQ(rows.size(), static_cast<size_t>(kThreads));
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(next_layer[i], kSpans);
  EXPECT_EQ(num_dropped(), 0U);
}

TEST_F(TraceTest, DropsBeyondMaxEvents) {
  TraceConfig few = config();
  few.max_events = 4;
  TraceWriter writer(few, clock_);
  const TraceRow row = writer.add_row("model replicas", "replica 0");
  const TraceArrow arrow{.name = "q", .from_row = row, .from = {}, .to_row = row, .to = {}};
  writer.add_span({.row = row, .name = "first"});
  writer.add_arrow(arrow);
  writer.add_arrow(arrow);  // has no room for both of its ends
  writer.add_span({.row = row, .name = "second"});
  writer.add_span({.row = row, .name = "third"});
  writer.close();
  EXPECT_EQ(events("X").size(), 2U);
  EXPECT_EQ(events("s").size(), 1U);
  EXPECT_EQ(events("f").size(), 1U);
  EXPECT_EQ(num_dropped(), 3U);
}

TEST_F(TraceTest, DropsWhatItCannotHold) {
  constexpr uint64_t kSpans = 10'000;
  TraceConfig small = config();
  small.max_pending = 2;
  TraceWriter writer(small, clock_);
  const TraceRow row = writer.add_row("model replicas", "replica 0");
  for (uint64_t i = 0; i < kSpans; ++i) writer.add_span({.row = row, .name = "slice", .step = i});
  writer.close();
  EXPECT_EQ(events("X").size() + num_dropped(), kSpans);
  EXPECT_GT(num_dropped(), 0U);
}

TEST_F(TraceTest, IsWholeWhenTheProcessIsKilled) {
  const auto killed_in_the_middle = [this] {
    TraceConfig few = config();
    few.max_events = 3;
    TraceWriter writer(few, clock_);
    const TraceRow row = writer.add_row("model replicas", "replica 0");
    for (const char* name : {"first", "second", "third", "dropped"}) {
      writer.add_span({.row = row, .name = name});
      // Each in a write of its own, over the end that the last one left.
      const char* awaited = std::string_view(name) == "dropped" ? "num_dropped" : name;
      while (text().find(awaited) == std::string::npos) std::this_thread::yield();
    }
    ::raise(SIGKILL);
  };
  EXPECT_EXIT(killed_in_the_middle(), ::testing::KilledBySignal(SIGKILL), "");
  const std::vector<json> spans = events("X");
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[2].at("name"), "third");
  EXPECT_EQ(num_dropped(), 1U);
}

TEST_F(TraceTest, IsWholeWhenTheDiskIsFull) {
  // In a process of its own: the limit stands for the disk, and would hold for other tests too.
  const auto fill = [this] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 100'000, .rlim_max = 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    TraceWriter writer(config(), clock_);
    const TraceRow row = writer.add_row("model replicas", "replica 0");
    writer.add_span({.row = row, .name = "fits"});
    while (text().find("fits") == std::string::npos) std::this_thread::yield();
    for (int32_t i = 0; i < 10'000; ++i) writer.add_span({.row = row, .name = "slice", .layer = i});
    writer.close();
    std::_Exit(0);
  };
  EXPECT_EXIT(fill(), ::testing::ExitedWithCode(0), "cannot write trace file .*File too large");
  const std::vector<json> spans = events("X");
  ASSERT_FALSE(spans.empty());
  EXPECT_EQ(spans.front().at("name"), "fits");
  EXPECT_LT(spans.size(), 10'001U);
}

TEST_F(TraceTest, MendsByItsLastLine) {
  TraceWriter writer(config(), clock_);
  const TraceRow row = writer.add_row("model replicas", "replica 0");
  for (int32_t i = 0; i < 3; ++i) writer.add_span({.row = row, .name = "slice", .layer = i});
  writer.close();
  const std::string whole = text();
  const size_t first_line = whole.find('\n');
  for (size_t size = first_line + 1; size <= whole.size(); ++size) {
    std::string mended = whole.substr(0, size);
    mended.resize(mended.rfind('\n'));
    if (size < whole.size()) mended += "]}";
    EXPECT_TRUE(json::accept(mended)) << mended;
  }
}

TEST_F(TraceTest, IsWholeWhenEmptyAndAfterClose) {
  TraceWriter writer(config(), clock_);
  EXPECT_TRUE(events().empty());
  const TraceRow row = writer.add_row("model replicas", "replica 0");
  writer.close();
  writer.add_span({.row = row, .name = "late"});
  writer.close();
  EXPECT_TRUE(events("X").empty());
  EXPECT_EQ(num_dropped(), 0U);
}

TEST_F(TraceTest, OverwritesALongerFile) {
  {
    TraceWriter(config(), clock_).add_row("model replicas", std::string(10'000, 'x'));
  }
  {
    const TraceWriter writer(config(), clock_);
  }
  EXPECT_TRUE(events().empty());
}

TEST_F(TraceTest, RefusesWhatItCannotWrite) {
  const auto message_of = [this](const std::filesystem::path& path) -> std::string {
    try {
      const TraceWriter writer({.path = path}, clock_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), StatusCode::kUnavailable);
      return error.what();
    }
    return "";
  };
  const std::filesystem::path missing = path_ / "trace.json";
  EXPECT_NE(message_of(missing).find(missing.string()), std::string::npos);
  EXPECT_NE(message_of("/dev/null").find("'/dev/null' is not a regular file"), std::string::npos);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_NE(message_of(path_).find(path_.string()), std::string::npos);
}

}  // namespace
}  // namespace lamina
