// Budget: what one rendering may still spend. Steps bound the time (nodes evaluated, plus work that
// grows with the size of strings and lists); live bytes bound the memory of every value and buffer
// together. Spending more than is left throws Error kResourceExhausted. Confined to one thread.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "text/chat_template.h"

namespace lamina::jinja {

class Budget {
 public:
  explicit Budget(const TemplateLimits& limits)
      : limits_(limits),
        steps_left_(limits.max_steps),
        bytes_left_(limits.max_output_bytes * kLiveStrings) {}

  void step(int64_t count = 1) {
    steps_left_ -= count;
    if (steps_left_ < 0) exhausted("{} evaluation steps", limits_.max_steps);
  }
  // Work on `bytes` bytes of text: copying or searching.
  void touch_bytes(size_t bytes) { step(static_cast<int64_t>(bytes / kBytesPerStep)); }
  // Work on `bytes` bytes of text one character at a time: tens of nanoseconds each.
  void touch_chars(size_t bytes) { step(static_cast<int64_t>(bytes / kCharBytesPerStep)); }
  // Work on `count` elements.
  void touch_items(size_t count) { step(static_cast<int64_t>(count / kItemsPerStep)); }

  void check_text_size(size_t bytes) const {
    if (static_cast<int64_t>(bytes) > limits_.max_output_bytes)
      exhausted("{} bytes of text", limits_.max_output_bytes);
  }

  void enter() {
    if (++depth_ > limits_.max_depth * kLevelsPerCall)
      exhausted("{} levels of evaluation", limits_.max_depth * kLevelsPerCall);
  }
  void leave() { --depth_; }
  void enter_macro() {
    if (++macro_depth_ > limits_.max_depth) exhausted("{} nested macro calls", limits_.max_depth);
  }
  void leave_macro() { --macro_depth_; }

  void acquire(size_t bytes) {
    bytes_left_ -= static_cast<int64_t>(bytes);
    if (bytes_left_ >= 0) return;
    bytes_left_ += static_cast<int64_t>(bytes);
    exhausted("{} bytes of live values", limits_.max_output_bytes * kLiveStrings);
  }
  void release(size_t bytes) noexcept { bytes_left_ += static_cast<int64_t>(bytes); }

 private:
  static constexpr size_t kBytesPerStep = 1024;
  static constexpr size_t kCharBytesPerStep = 32;
  static constexpr size_t kItemsPerStep = 8;
  static constexpr int64_t kLiveStrings = 8;    // live memory, in strings of the largest size
  static constexpr int32_t kLevelsPerCall = 8;  // what a macro's body nests, on average

  template <typename T>
  [[noreturn]] static void exhausted(fmt::format_string<const T&> what, const T& limit) {
    throw Error(StatusCode::kResourceExhausted,
                "the chat template went past its limit of " + fmt::format(what, limit));
  }

  TemplateLimits limits_;
  int64_t steps_left_;
  int64_t bytes_left_;
  int32_t depth_ = 0;
  int32_t macro_depth_ = 0;
};

// Bytes held against a Budget, given back on destruction. Empty for values that no rendering owns
// (a template's constants).
class Charge {
 public:
  Charge() = default;
  Charge(Budget& budget, size_t bytes) : budget_(&budget) { grow(bytes); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  Charge(Charge&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_ != nullptr) budget_->release(bytes_);
  }

  void grow(size_t bytes) {
    if (budget_ == nullptr) return;
    budget_->acquire(bytes);
    bytes_ += bytes;
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lamina::jinja
