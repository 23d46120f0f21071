#include "engine/choice_text.h"

#include <algorithm>

namespace lamina {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Length of the longest end of `text` that is a proper beginning of `stop`.
size_t overlap(const std::string& text, const std::string& stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.compare(text.size() - length, length, stop, 0, length) == 0) return length;
  }
  return 0;
}

}  // namespace

ChoiceText::ChoiceText(const Tokenizer* tokenizer,
                       const GenerationRequest& request,
                       const std::vector<int32_t>& eos_ids)
    : request_(&request), eos_ids_(&eos_ids) {
  if (tokenizer != nullptr) {
    detokenizer_.emplace(*tokenizer, request.skip_special_tokens, /*continues_text=*/true);
  }
}

bool ChoiceText::is_eos(int32_t id) const {
  return !request_->ignore_eos && contains(*eos_ids_, id);
}

bool ChoiceText::is_stop_id(int32_t id) const {
  return contains(request_->stop_ids, id);
}

GenerationDelta ChoiceText::add(const ScoredToken& token, bool is_last) {
  GenerationDelta delta;
  ++num_tokens_;
  delta.tokens.push_back(token);
  const bool may_stop = num_tokens_ >= request_->min_tokens;
  if (is_stop_id(token.id) || is_eos(token.id)) {
    if (request_->include_stop_str_in_output && detokenizer_) held_ += detokenizer_->add(token.id);
    end(delta, FinishReason::kStop);
    if (is_stop_id(token.id)) delta.stop_reason = token.id;
    return delta;
  }
  if (detokenizer_) held_ += detokenizer_->add(token.id);
  if (may_stop && find_stop_string(delta)) return delta;
  if (is_last) {
    end(delta, FinishReason::kLength);
  } else {
    release_certain_text(delta);
  }
  return delta;
}

void ChoiceText::end(GenerationDelta& delta, FinishReason reason) {
  if (detokenizer_) held_ += detokenizer_->finish();
  delta.text = std::exchange(held_, {});
  delta.finish_reason = reason;
}

bool ChoiceText::find_stop_string(GenerationDelta& delta) {
  size_t best = std::string::npos;
  const std::string* matched = nullptr;
  for (const std::string& stop : request_->stop) {
    const size_t position = stop.empty() ? std::string::npos : held_.find(stop);
    if (position < best) {
      best = position;
      matched = &stop;
    }
  }
  if (matched == nullptr) return false;
  delta.text = held_.substr(0, best + (request_->include_stop_str_in_output ? matched->size() : 0));
  delta.finish_reason = FinishReason::kStop;
  delta.stop_reason = *matched;
  held_.clear();
  return true;
}

void ChoiceText::release_certain_text(GenerationDelta& delta) {
  size_t keep = 0;
  for (const std::string& stop : request_->stop) {
    if (!stop.empty()) keep = std::max(keep, overlap(held_, stop));
  }
  delta.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

}  // namespace lamina
