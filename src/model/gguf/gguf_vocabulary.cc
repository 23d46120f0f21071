#include "model/gguf/gguf_vocabulary.h"

#include <fmt/format.h>

namespace lamina {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string key(std::string_view name) {
  return fmt::format("{}{}", kPrefix, name);
}

std::optional<int32_t> read_id(const GgufMetadata& metadata, std::string_view name, size_t count) {
  // 2^32 - 1 and -1 stand for "none" in some files.
  const auto id = metadata.number(key(name), -1.0, 4294967295.0);
  if (!id || *id < 0.0 || *id >= static_cast<double>(count)) return std::nullopt;
  return static_cast<int32_t>(*id);
}

// What writers assume where the key is absent: SentencePiece models begin with BOS, and so do the
// byte-level ones of Llama 3.
bool default_add_bos(const GgufVocabulary& vocabulary) {
  const std::string& pre = vocabulary.pre;
  return vocabulary.model == "llama" || pre == "llama3" || pre == "llama-v3" || pre == "llama-bpe";
}

void require_length(const GgufMetadata& metadata,
                    std::string_view name,
                    size_t length,
                    size_t count) {
  if (length == 0 || length == count) return;
  metadata.refuse(fmt::format("'{}' has {} entries for {} tokens", key(name), length, count));
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufMetadata& metadata) {
  const auto model = metadata.text(key("model"));
  auto tokens = metadata.texts(key("tokens"));
  if (!model || !tokens) {
    metadata.refuse(
        fmt::format("'{}' is missing: the file has no tokenizer", key(model ? "tokens" : "model")));
  }
  GgufVocabulary vocabulary;
  vocabulary.model = *model;
  vocabulary.pre = metadata.text(key("pre")).value_or("default");
  vocabulary.tokens = std::move(*tokens);
  const size_t count = vocabulary.tokens.size();
  vocabulary.scores = metadata.floats(key("scores")).value_or(std::vector<float>());
  require_length(metadata, "scores", vocabulary.scores.size(), count);
  vocabulary.token_types = metadata.integers(key("token_type")).value_or(std::vector<int32_t>());
  require_length(metadata, "token_type", vocabulary.token_types.size(), count);
  vocabulary.merges = metadata.texts(key("merges")).value_or(std::vector<std::string>());
  vocabulary.bos_id = read_id(metadata, "bos_token_id", count);
  vocabulary.eos_id = read_id(metadata, "eos_token_id", count);
  vocabulary.unknown_id = read_id(metadata, "unknown_token_id", count);
  vocabulary.add_bos = metadata.boolean(key("add_bos_token")).value_or(default_add_bos(vocabulary));
  vocabulary.add_eos = metadata.boolean(key("add_eos_token")).value_or(false);
  vocabulary.add_space_prefix = metadata.boolean(key("add_space_prefix")).value_or(true);
  return vocabulary;
}

}  // namespace lamina
