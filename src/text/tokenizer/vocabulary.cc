#include "text/tokenizer/vocabulary.h"

#include <fmt/format.h>

#include "base/error.h"
#include "text/tokenizer/utf8.h"

namespace lamina {

void Vocabulary::add(std::string_view text, int64_t id) {
  if (id < 0 || id >= kMaxSize) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("token {} has id {}, not in [0, {})", in_quotes(text), id, kMaxSize));
  }
  if (text.size() > kMaxTokenBytes || !is_valid_utf8(text)) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("token {} is not UTF-8 of at most {} bytes", id, kMaxTokenBytes));
  }
  const auto index = static_cast<size_t>(id);
  if (index >= texts_.size()) texts_.resize(index + 1);
  if (texts_[index].data() != nullptr) {
    throw Error(
        StatusCode::kInvalidArgument,
        fmt::format(
            "id {} is given to {} and to {}", id, in_quotes(texts_[index]), in_quotes(text)));
  }
  const auto [entry, inserted] = ids_.try_emplace(std::string(text), static_cast<int32_t>(id));
  texts_[index] = entry->first;
}

std::optional<int32_t> Vocabulary::find(std::string_view text) const {
  const auto entry = ids_.find(text);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

void Vocabulary::add_outside_model(std::string_view text, int64_t id) {
  add(text, id);
  outside_model_.insert(static_cast<int32_t>(id));
}

std::optional<int32_t> Vocabulary::find_in_model(std::string_view text) const {
  const std::optional<int32_t> id = find(text);
  return id && outside_model_.contains(*id) ? std::nullopt : id;
}

std::string_view Vocabulary::text(int32_t id) const {
  return contains(id) ? texts_[static_cast<size_t>(id)] : std::string_view();
}

bool Vocabulary::contains(int32_t id) const {
  return id >= 0 && id < size() && texts_[static_cast<size_t>(id)].data() != nullptr;
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxBytes = 60;
  std::string shown(text.substr(0, kMaxBytes));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  if (!is_valid_utf8(shown)) {  // a character cut in two, or never one
    std::string pending = std::move(shown);
    shown.clear();
    drain_utf8(pending, shown);
  }
  return fmt::format("'{}{}'", shown, text.size() > kMaxBytes ? "..." : "");
}

}  // namespace lamina
