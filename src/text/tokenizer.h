// Tokenizer: text to token ids and back. Two algorithms, byte-level BPE and SentencePiece-style BPE
// with byte fallback, behind one interface; built from a Hugging Face tokenizer.json, a
// SentencePiece tokenizer.model, or a vocabulary that model/ read from a GGUF file. Immutable, safe
// to use from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lamina {

struct EncodeOptions {
  bool add_special_tokens = true;  // BOS and EOS as the tokenizer's own post-processor says
  bool parse_special = true;       // "<|im_end|>" in the text becomes its id; else it is plain text
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // kInvalidArgument if `text` is not UTF-8; kResourceExhausted above 16 MiB.
  [[nodiscard]] virtual Result<std::vector<int32_t>> encode(std::string_view text,
                                                            const EncodeOptions& options) const = 0;
  // Bytes of one token as it stands in running text: may be part of a UTF-8 character. Empty for
  // unknown ids.
  [[nodiscard]] virtual std::string_view token_bytes(int32_t id) const = 0;
  // SentencePiece style drops the space that encode() put before the text: true if decoding has to
  // strip one leading space.
  [[nodiscard]] virtual bool strips_leading_space() const = 0;
  [[nodiscard]] virtual bool is_special(int32_t id) const = 0;
  [[nodiscard]] virtual std::optional<int32_t> find(std::string_view token) const = 0;
  [[nodiscard]] virtual int32_t vocab_size() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> bos_id() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> eos_id() const = 0;

  // Whole text of `ids`; invalid UTF-8 becomes U+FFFD.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
};

// A vocabulary as a GGUF file carries it (metadata tokenizer.ggml.*).
struct GgufVocabulary {
  std::string model;  // "gpt2" (byte-level BPE) or "llama" (SentencePiece style)
  std::string pre;    // name of the split pattern: "default", "llama-bpe", "qwen2", "smollm", ...
  std::vector<std::string> tokens;
  std::vector<float> scores;         // "llama" only
  std::vector<int32_t> token_types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
  std::vector<std::string> merges;   // "gpt2" only
  std::optional<int32_t> bos_id, eos_id, unknown_id;
  bool add_bos = false, add_eos = false, add_space_prefix = true;
};

// All throw Error kInvalidArgument, naming the file and what is wrong or not supported ("tokenizer
// model 'unigram' is not supported"); kNotFound if nothing is there. Files are hostile.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& tokenizer_json,
                                               const std::filesystem::path& tokenizer_config_json);
// add_bos_token (default true) and add_eos_token (false) come from tokenizer_config.json beside it.
std::unique_ptr<Tokenizer> load_sentencepiece_model(const std::filesystem::path& tokenizer_model);
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufVocabulary& vocabulary);
// tokenizer.json, else tokenizer.model, of a model folder.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir);

}  // namespace lamina
