// TraceWriter: a timeline of a running server, as a file for https://ui.perfetto.dev or
// chrome://tracing. One row per model replica and per attention worker; spans on the rows; arrows
// from a send on one row to what it starts on another. Used by whoever knows the rows; it is not a
// log and not metrics.
//
// The file is the trace event format's JSON object, {"traceEvents": [...]}, one event a line. Each
// write to it ends in the closing brackets and the next write starts on top of them, so the file is
// whole JSON after every write, not only after close(): a process killed at any time leaves a trace
// that loads, short of the last flush_interval. (The bare array form may lack its end, but only
// between events in chrome://tracing; of an object, Perfetto calls that incomplete.) Should a kill
// or a power cut fall into a write: drop the last line and append "]}". Source: "Trace Event
// Format" (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"

namespace lamina {

class TraceFile;

struct TraceConfig {
  std::filesystem::path path;  // made, or overwritten
  // Events in the file, a span being one and an arrow two; later ones are dropped. A span takes
  // about 200 bytes, so the file is bounded by 200 MB or so.
  uint64_t max_events = 1'000'000;
  // Spans and arrows kept in memory until written, 200 bytes for each at most.
  size_t max_pending = 1 << 15;
  // How often what is pending is written; sooner once it is half of max_pending.
  Duration flush_interval = std::chrono::milliseconds(250);
};

// A line of the timeline, made by TraceWriter::add_row. Both are ids in the file: the pool's and
// the row's own.
struct TraceRow {
  int32_t process = 0;
  int32_t thread = 0;
};

// The spans of one row nest or follow one another; viewers do not draw those that overlap in part.
// Views refer to literals, or to text that outlives the writer. Negative numbers are left out of
// the file, as is a step that is not there.
struct TraceSpan {
  TraceRow row;
  std::string_view name;
  std::string_view category = "step";  // what viewers filter by
  TimePoint begin;
  TimePoint end;
  std::optional<uint64_t> step = {};
  int32_t micro_batch = -1;
  int32_t layer = -1;
  int32_t slice = -1;
  int32_t num_tokens = -1;
};

// Each end is drawn at the span of its row that holds its time, begin and end included: add those
// spans first.
struct TraceArrow {
  std::string_view name;  // as TraceSpan's
  TraceRow from_row;
  TimePoint from;
  TraceRow to_row;
  TimePoint to;
};

// Internally locked: add_row, add_span and add_arrow may be called from any thread until close()
// is. Names may be any bytes: what is not printable ASCII is written as an escape or as '?'.
class TraceWriter {
 public:
  // Times in the file count from now on `clock`, whose TimePoints spans must bear; what lies
  // earlier is drawn at 0. Starts the thread that writes. Throws Error kUnavailable, with the path,
  // if the file cannot be made or written or is not a regular one.
  explicit TraceWriter(TraceConfig config, const Clock& clock = steady_clock());
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;
  ~TraceWriter();

  // A new row at the end of `pool` ("model replicas", "attention workers"); pools stand in the
  // order in which they were first named. Allocates: for set-up. Rows are not counted as events.
  TraceRow add_row(std::string_view pool, std::string_view name);

  // For the step path: a copy under a lock that is held for copies only; no allocation, no wait for
  // the file. Dropped and counted where max_pending or max_events is reached; an arrow is dropped
  // whole. The writing thread logs the first drop. If it cannot write (disk full), it logs that,
  // and the trace ends there.
  void add_span(const TraceSpan& span) noexcept;
  void add_arrow(const TraceArrow& arrow) noexcept;

  // Writes what is pending and closes the file. Where events were dropped, a last metadata event
  // "dropped_events" says how many. What is added afterwards is ignored. Idempotent, but for one
  // thread at a time; the destructor calls it.
  void close() noexcept;

 private:
  using Event = std::variant<TraceSpan, TraceArrow>;

  void add(const Event& event, uint64_t num_events) noexcept;
  void run() noexcept;
  void write_until_closed();
  void write_batch(uint64_t num_dropped);

  const TraceConfig config_;
  const TimePoint origin_;

  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  std::vector<Event> pending_;
  std::vector<std::string> pending_rows_;  // metadata events, formatted
  std::vector<std::string> pools_;         // the process id is the index + 1
  int32_t num_rows_ = 0;
  uint64_t num_taken_ = 0;    // events
  uint64_t num_dropped_ = 0;  // events
  bool closing_ = false;

  // The writing thread's.
  std::unique_ptr<TraceFile> file_;
  std::vector<Event> batch_;
  std::vector<std::string> batch_rows_;
  uint64_t num_dropped_written_ = 0;  // what the file says of num_dropped_

  std::thread thread_;  // last: it uses the above
};

}  // namespace lamina
