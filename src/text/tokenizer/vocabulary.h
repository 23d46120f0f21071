// Vocabulary: token texts as the file writes them, and their ids. Built once by a loader, then
// immutable. Says nothing of what a token means; BpeModel and BpeTokenizer do.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace lamina {

class Vocabulary {
 public:
  static constexpr int32_t kMaxSize = 1 << 22;
  static constexpr size_t kMaxTokenBytes = 4096;

  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  ~Vocabulary() = default;

  // Throws Error kInvalidArgument: text not UTF-8 or too long, id out of range or taken. A text
  // that is there already keeps its first id for find().
  void add(std::string_view text, int64_t id);
  // The same for a token that text never becomes by merges, only by being looked for: an added
  // token that the model's own vocabulary lacks.
  void add_outside_model(std::string_view text, int64_t id);

  [[nodiscard]] std::optional<int32_t> find(std::string_view text) const;
  // As find(), but not what is outside the model.
  [[nodiscard]] std::optional<int32_t> find_in_model(std::string_view text) const;
  // Empty for an id that is not there.
  [[nodiscard]] std::string_view text(int32_t id) const;
  [[nodiscard]] bool contains(int32_t id) const;
  // One more than the largest id; there may be gaps.
  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(texts_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string_view> texts_;  // into the keys of ids_; data() is null in a gap
  std::unordered_set<int32_t> outside_model_;
};

// `text` in quotes for a one-line message: control characters as '?', cut after 60 bytes.
std::string in_quotes(std::string_view text);

}  // namespace lamina
