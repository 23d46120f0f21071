// What step_codec.cc and result_codec.cc share: records, and the checks of hostile counts, ids and
// slots. Not for other files.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "wire/byte_codec.h"
#include "wire/messages.h"
#include "worker/step_codec.h"

namespace lamina::codec {

using wire::ByteReader;
using wire::MessageHeader;
using wire::MessageKind;

// A token and its bias or log-probability. Floats travel as bits: a struct with a
// float has no unique bytes.
struct ValueRecord {
  int32_t id = 0;
  uint32_t value = 0;
};

inline uint32_t to_bits(float value) {
  return std::bit_cast<uint32_t>(value);
}

inline float from_bits(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

template <typename T>
uint32_t count_of(const std::vector<T>& values) {
  return static_cast<uint32_t>(values.size());
}

inline Status truncated() {
  return data_loss("message ends before its last entry");
}

inline Status check_below(const char* what, int64_t value, int64_t end) {
  if (value >= 0 && value < end) return {};
  return invalid_argument(fmt::format("message has {} {}, expected 0 to {}", what, value, end - 1));
}

inline Status check_all_below(const char* what, std::span<const int32_t> values, int32_t end) {
  for (const int32_t value : values) LAMINA_RETURN_IF_ERROR(check_below(what, value, end));
  return {};
}

inline Status check_at_most(const char* what, uint64_t count, uint64_t limit) {
  if (count <= limit) return {};
  return invalid_argument(fmt::format("message has {} {}, limit {}", count, what, limit));
}

inline Status check_end(const ByteReader& reader) {
  if (reader.remaining() == 0) return {};
  return data_loss(fmt::format("message has {} bytes after its end", reader.remaining()));
}

// Entries that a message may still have.
class Budget {
 public:
  Budget(const char* what, int32_t limit) : what_(what), left_(std::max(limit, 0)) {}

  Status take(uint32_t count) {
    if (count > left_) {
      return invalid_argument(
          fmt::format("message has {} {}, where {} are left", count, what_, left_));
    }
    left_ -= count;
    return {};
  }

 private:
  const char* what_;
  int64_t left_;
};

// `count` values, which the caller has bounded.
inline Status read_vector(ByteReader& reader, uint32_t count, std::vector<int32_t>& into) {
  if (count * sizeof(int32_t) > reader.remaining()) return truncated();
  into.resize(count);
  return reader.read_all(std::span(into)) ? Status() : truncated();
}

// The header of a message of this kind and epoch, its micro-batch and number of rows in bounds.
inline Result<MessageHeader> open_message(std::span<const std::byte> message,
                                          MessageKind kind,
                                          uint64_t epoch,
                                          const StepCodecLimits& limits) {
  LAMINA_ASSIGN_OR_RETURN(const MessageHeader header, wire::decode_header(message));
  if (header.epoch != epoch) {
    return Status(StatusCode::kAborted,
                  fmt::format("message of epoch {}, expected {}", header.epoch, epoch));
  }
  if (header.kind != static_cast<uint16_t>(kind)) {
    return Status(
        StatusCode::kAborted,
        fmt::format("message of kind {}, expected {}", header.kind, static_cast<uint16_t>(kind)));
  }
  LAMINA_RETURN_IF_ERROR(check_below("micro-batch", header.micro_batch, limits.max_micro_batches));
  LAMINA_RETURN_IF_ERROR(
      check_below("number of rows", header.num_rows, int64_t{limits.max_sequences} + 1));
  return header;
}

// What a message has said of a slot so far.
enum class SlotUse : uint8_t { kNone, kRuns, kStarts, kStarted };

// The slots of a message: each below the limit, and at most once.
class SlotUses {
 public:
  explicit SlotUses(int32_t max_sequences)
      : uses_(static_cast<size_t>(std::max(max_sequences, 0)), SlotUse::kNone) {}

  Status change(int32_t slot, SlotUse from, SlotUse to) {
    LAMINA_RETURN_IF_ERROR(check_below("slot", slot, std::ssize(uses_)));
    SlotUse& use = uses_[static_cast<size_t>(slot)];
    if (use != from) {
      return data_loss(from == SlotUse::kNone
                           ? fmt::format("message has slot {} twice", slot)
                           : fmt::format("message starts slot {} without a step or twice", slot));
    }
    use = to;
    return {};
  }

 private:
  std::vector<SlotUse> uses_;
};

// For max_*_bytes(), whose sums need no other check.
static_assert(sizeof(size_t) == 8, "no sum of 31-bit counts times less than 2^16 bytes overflows");

inline size_t checked_count(const char* what, int32_t limit) {
  if (limit >= 0) return static_cast<size_t>(limit);
  throw Error(StatusCode::kInvalidArgument, fmt::format("limit {} is {}", what, limit));
}

}  // namespace lamina::codec
