#include "base/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace lamina {
namespace {

constexpr std::string_view kHead = "{\"traceEvents\":[";
constexpr std::string_view kTail = "\n]}\n";
// Text gathered before it is written: bounds memory, and keeps writes few.
constexpr size_t kWriteBytes = 1 << 20;
// Process ids count from 1. Rows' ids stay clear of them: a thread whose id is its process's is
// taken for the main one, and drawn first.
constexpr int32_t kFirstThread = 1000;

Status errno_status(const std::filesystem::path& path, const char* action) {
  return unavailable(fmt::format("cannot {} trace file '{}': {}",
                                 action,
                                 path.string(),
                                 std::generic_category().message(errno)));
}

FileHandle create_regular(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO by mistake must not hang.
  FileHandle file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644));
  if (!file) throw Error(errno_status(path, "create"));
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) throw Error(errno_status(path, "stat"));
  if (!S_ISREG(info.st_mode)) {
    throw Error(StatusCode::kUnavailable,
                fmt::format("trace file '{}' is not a regular file", path.string()));
  }
  return file;
}

bool write_at(int fd, std::string_view text, uint64_t offset) {
  while (!text.empty()) {
    const ssize_t done = ::pwrite(fd, text.data(), text.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    text.remove_prefix(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return true;
}

// Everything but printable ASCII becomes an escape or '?', so the result is JSON whatever the
// bytes.
void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
    } else {
      out += byte < 0x7f ? c : '?';
    }
  }
  out += '"';
}

// Microseconds, exactly.
void append_time(std::string& out, std::string_view key, Duration time) {
  const int64_t ns = std::max<int64_t>(time.count(), 0);
  fmt::format_to(std::back_inserter(out), R"(,"{}":{}.{:03})", key, ns / 1000, ns % 1000);
}

std::string metadata_event(TraceRow row, std::string_view event, std::string_view args) {
  return fmt::format(R"({{"ph":"M","ts":0,"pid":{},"tid":{},"name":"{}","args":{{{}}}}})",
                     row.process,
                     row.thread,
                     event,
                     args);
}

// What gives a process or thread ("kind") its name and its place among its siblings.
void append_naming(std::vector<std::string>& events,
                   TraceRow row,
                   std::string_view kind,
                   std::string_view name,
                   int32_t place) {
  std::string args = "\"name\":";
  append_string(args, name);
  events.push_back(metadata_event(row, fmt::format("{}_name", kind), args));
  args = fmt::format("\"sort_index\":{}", place);
  events.push_back(metadata_event(row, fmt::format("{}_sort_index", kind), args));
}

}  // namespace

// The file and the text of what comes next in it. A line begins with its newline and comma, so that
// the file can be closed, or mended, after any line. Readers of the format look for "ph" and "ts"
// first, and some stumble over escapes before them: names come late. Confined to one thread.
class TraceFile {
 public:
  TraceFile(const std::filesystem::path& path, TimePoint origin)
      : path_(path), origin_(origin), file_(create_regular(path)), text_(kHead) {}

  [[nodiscard]] size_t num_unwritten_bytes() const { return text_.size(); }

  void append(std::string_view event) {
    begin_line();
    text_ += event;
  }

  void append(const TraceSpan& span) {
    begin_line();
    const TimePoint begin = std::max(span.begin, origin_);
    append_head('X', begin, span.row);
    append_time(text_, "dur", span.end - begin);
    append_name(span.name, span.category);
    text_ += ",\"args\":{";
    if (span.step) append_arg("step", *span.step);
    if (span.micro_batch >= 0) append_arg("micro_batch", span.micro_batch);
    if (span.layer >= 0) append_arg("layer", span.layer);
    if (span.slice >= 0) append_arg("slice", span.slice);
    if (span.num_tokens >= 0) append_arg("num_tokens", span.num_tokens);
    text_ += "}}";
  }

  void append(const TraceArrow& arrow) {
    ++num_arrows_;
    // Viewers join the two by id, name and category.
    append_arrow_end('s', arrow.name, arrow.from_row, arrow.from);
    append_arrow_end('f', arrow.name, arrow.to_row, arrow.to);
  }

  // Writes what was appended, then the end of the file, over the end that stands there. After an
  // error the file ends as it did before, if the disk lets it.
  [[nodiscard]] Status write(uint64_t num_dropped) {
    const size_t num_body_bytes = text_.size();
    append_tail(num_dropped);
    if (!write_at(file_.get(), text_, next_offset_)) {
      const Status status = errno_status(path_, "write");
      if (::ftruncate(file_.get(), static_cast<off_t>(next_offset_)) == 0) {
        static_cast<void>(write_at(file_.get(), kTail, next_offset_));
      }
      return status;
    }
    next_offset_ += num_body_bytes;
    text_.clear();
    return {};
  }

 private:
  void begin_line() {
    text_ += has_lines_ ? "\n," : "\n";
    has_lines_ = true;
  }

  void append_head(char phase, TimePoint time, TraceRow row) {
    fmt::format_to(std::back_inserter(text_), R"({{"ph":"{}")", phase);
    append_time(text_, "ts", time - origin_);
    fmt::format_to(std::back_inserter(text_), R"(,"pid":{},"tid":{})", row.process, row.thread);
  }

  void append_name(std::string_view name, std::string_view category) {
    text_ += ",\"cat\":";
    append_string(text_, category);
    text_ += ",\"name\":";
    append_string(text_, name);
  }

  template <typename Number>
  void append_arg(std::string_view key, Number value) {
    const std::string_view separator = text_.back() == '{' ? "" : ",";
    fmt::format_to(std::back_inserter(text_), R"({}"{}":{})", separator, key, value);
  }

  void append_arrow_end(char phase, std::string_view name, TraceRow row, TimePoint time) {
    begin_line();
    append_head(phase, time, row);
    fmt::format_to(std::back_inserter(text_), R"(,"id":{})", num_arrows_);
    if (phase == 'f') text_ += R"(,"bp":"e")";  // bind to the enclosing span, not to the next
    append_name(name, "arrow");
    text_ += '}';
  }

  // It never gets shorter, so writing over the last one leaves nothing of that.
  void append_tail(uint64_t num_dropped) {
    if (num_dropped > 0) {
      text_ += has_lines_ ? "\n," : "\n";
      const std::string args = fmt::format("\"num_dropped\":{}", num_dropped);
      text_ += metadata_event({.process = 1, .thread = 1}, "dropped_events", args);
    }
    text_ += kTail;
  }

  const std::filesystem::path path_;
  const TimePoint origin_;
  FileHandle file_;
  std::string text_;
  uint64_t next_offset_ = 0;  // in the file: where text_ will stand
  bool has_lines_ = false;
  uint64_t num_arrows_ = 0;
};

TraceWriter::TraceWriter(TraceConfig config, const Clock& clock)
    : config_(std::move(config)),
      origin_(clock.now()),
      file_(std::make_unique<TraceFile>(config_.path, origin_)) {
  LAMINA_CHECK_GT(config_.max_pending, 0U);
  throw_if_error(file_->write(0));
  pending_.reserve(config_.max_pending);
  batch_.reserve(config_.max_pending);
  thread_ = std::thread([this] { run(); });
}

TraceWriter::~TraceWriter() {
  close();
}

TraceRow TraceWriter::add_row(std::string_view pool, std::string_view name) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find(pools_.begin(), pools_.end(), pool);
  const auto process = static_cast<int32_t>(found - pools_.begin()) + 1;
  if (found == pools_.end()) {
    pools_.emplace_back(pool);
    append_naming(pending_rows_, {.process = process, .thread = process}, "process", pool, process);
  }
  const TraceRow row{.process = process, .thread = kFirstThread + num_rows_};
  append_naming(pending_rows_, row, "thread", name, num_rows_);
  ++num_rows_;
  return row;
}

void TraceWriter::add_span(const TraceSpan& span) noexcept {
  add(span, 1);
}

void TraceWriter::add_arrow(const TraceArrow& arrow) noexcept {
  add(arrow, 2);
}

void TraceWriter::add(const Event& event, uint64_t num_events) noexcept {
  bool is_half_full = false;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return;
    if (pending_.size() >= config_.max_pending || num_events > config_.max_events - num_taken_) {
      num_dropped_ += num_events;
      return;
    }
    num_taken_ += num_events;
    pending_.push_back(event);
    is_half_full = pending_.size() == (config_.max_pending + 1) / 2;
  }
  if (is_half_full) wake_.notify_one();
}

void TraceWriter::close() noexcept {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  thread_.join();
  file_.reset();
}

void TraceWriter::run() noexcept {
  try {
    write_until_closed();
  } catch (const std::exception& error) {
    // What is on disk is whole; callers fill what is left of the buffer, then drop.
    log_error("trace '{}' ends early: {}", config_.path.string(), error.what());
  }
}

void TraceWriter::write_until_closed() {
  for (bool last = false; !last;) {
    uint64_t num_dropped = 0;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, config_.flush_interval, [this] {
        return closing_ || pending_.size() >= (config_.max_pending + 1) / 2;
      });
      last = closing_;
      num_dropped = num_dropped_;
      pending_.swap(batch_);
      pending_rows_.swap(batch_rows_);
    }
    write_batch(num_dropped);
  }
}

void TraceWriter::write_batch(uint64_t num_dropped) {
  if (num_dropped > 0 && num_dropped_written_ == 0) {
    log_warning("trace '{}' drops events: more than {} in all, or {} between two writes",
                config_.path.string(),
                config_.max_events,
                config_.max_pending);
  }
  for (const std::string& event : batch_rows_) file_->append(event);
  for (const Event& event : batch_) {
    std::visit([this](const auto& alternative) { file_->append(alternative); }, event);
    if (file_->num_unwritten_bytes() >= kWriteBytes) throw_if_error(file_->write(num_dropped));
  }
  if (file_->num_unwritten_bytes() > 0 || num_dropped > num_dropped_written_) {
    throw_if_error(file_->write(num_dropped));
  }
  num_dropped_written_ = num_dropped;
  batch_rows_.clear();
  batch_.clear();
}

}  // namespace lamina
