#include "text/tokenizer/bpe_tokenizer.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

constexpr size_t kMaxVocabularyBytes = size_t{512} << 20;

}  // namespace

BpeTokenizer::BpeTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
  fill_token_bytes();
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (const AddedToken& token : parts_.added_tokens) {
    (token.normalized ? normalized : raw).push_back(token);
  }
  raw_tokens_ = AddedTokens(std::move(raw));
  normalized_tokens_ = AddedTokens(std::move(normalized));
}

void BpeTokenizer::fill_token_bytes() {
  const Vocabulary& vocabulary = parts_.model.vocabulary();
  const auto num_ids = static_cast<size_t>(vocabulary.size());
  token_bytes_.resize(num_ids);
  const auto byte_of = [&](std::string_view text) {
    return parts_.decoding.byte_fallback ? parse_byte_token(text) : std::nullopt;
  };
  for (size_t id = 0; id < num_ids; ++id) {
    const std::string_view text = vocabulary.text(static_cast<int32_t>(id));
    if (parts_.model.options().byte_level) {
      token_bytes_[id] = from_byte_alphabet(text).value_or(std::string(text));
    } else if (const auto byte = byte_of(text)) {
      token_bytes_[id].assign(1, *byte);
    } else {
      token_bytes_[id] = text;
    }
  }
  special_.assign(num_ids, false);
  for (const AddedToken& token : parts_.added_tokens) {
    // Written as it is looked for, not in the byte alphabet.
    const auto byte = byte_of(token.content);
    token_bytes_[static_cast<size_t>(token.id)] = byte ? std::string(1, *byte) : token.content;
    special_[static_cast<size_t>(token.id)] = token.special;
  }
  size_t total = 0;
  for (std::string& bytes : token_bytes_) {
    for (const ReplaceStep& step : parts_.decoding.replacements) {
      bytes = replace_all(bytes, step.from, step.to);
      total += bytes.size();
      if (total > kMaxVocabularyBytes) {
        throw Error(StatusCode::kInvalidArgument, "the decoder makes the tokens too long");
      }
    }
  }
}

Result<std::vector<int32_t>> BpeTokenizer::encode(std::string_view text,
                                                  const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return resource_exhausted(
        fmt::format("a text of {} bytes, the limit is {}", text.size(), kMaxTextBytes));
  }
  if (!is_valid_utf8(text)) return invalid_argument("the text is not valid UTF-8");
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = parts_.prefix_ids;
  BpeModel::Scratch scratch;
  for (const AddedTokens::Part& part : raw_tokens_.split(text, options.parse_special)) {
    if (part.id != AddedTokens::kNoToken) {
      ids.push_back(part.id);
      continue;
    }
    const bool at_start = part.text.data() == text.data();
    LAMINA_RETURN_IF_ERROR(encode_raw(part.text, options.parse_special, at_start, scratch, ids));
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), parts_.suffix_ids.begin(), parts_.suffix_ids.end());
  }
  return ids;
}

Status BpeTokenizer::encode_raw(std::string_view text,
                                bool parse_special,
                                bool at_start,
                                BpeModel::Scratch& scratch,
                                std::vector<int32_t>& ids) const {
  const Result<std::string> normalized = parts_.normalizer.apply(text);
  if (!normalized.ok()) return normalized.status();
  for (const AddedTokens::Part& part : normalized_tokens_.split(*normalized, parse_special)) {
    if (part.id != AddedTokens::kNoToken) {
      ids.push_back(part.id);
      continue;
    }
    const bool part_at_start = at_start && part.text.data() == normalized->data();
    const Result<Pieces> pieces = parts_.pre_tokenizer.apply(part.text, part_at_start);
    if (!pieces.ok()) return pieces.status();
    const std::string_view piece_text = pieces->text;
    for (const TextRange& range : pieces->ranges) {
      parts_.model.encode(piece_text.substr(range.begin, range.end - range.begin), scratch, ids);
    }
  }
  return Status::ok_status();
}

std::string_view BpeTokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return token_bytes_[static_cast<size_t>(id)];
}

bool BpeTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)];
}

std::optional<int32_t> BpeTokenizer::find(std::string_view token) const {
  return parts_.model.vocabulary().find(token);
}

}  // namespace lamina
