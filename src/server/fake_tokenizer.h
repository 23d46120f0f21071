// FakeTokenizer: one token a byte, BOS and EOS above them: enough to see what the server does with
// text. For the server's tests and fuzz targets only.
#pragma once

#include <array>
#include <string>

#include "text/tokenizer.h"

namespace lamina::server {

class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kBos = 256;
  static constexpr int32_t kEos = 257;
  static constexpr int32_t kVocabSize = 258;

  FakeTokenizer() {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
  }
  [[nodiscard]] Result<std::vector<int32_t>> encode(std::string_view text,
                                                    const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids.push_back(kBos);
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  [[nodiscard]] std::string_view token_bytes(int32_t id) const override {
    if (id == kBos) return "<s>";
    if (id == kEos) return "</s>";
    return id >= 0 && id < kBos ? std::string_view(&bytes_[static_cast<size_t>(id)], 1)
                                : std::string_view();
  }
  [[nodiscard]] bool strips_leading_space() const override { return false; }
  [[nodiscard]] bool is_special(int32_t id) const override { return id == kBos || id == kEos; }
  [[nodiscard]] std::optional<int32_t> find(std::string_view token) const override {
    if (token == "<s>") return kBos;
    if (token == "</s>") return kEos;
    if (token.size() == 1) return static_cast<unsigned char>(token[0]);
    return std::nullopt;
  }
  [[nodiscard]] int32_t vocab_size() const override { return kVocabSize; }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return kBos; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return kEos; }

 private:
  std::array<char, 256> bytes_{};
};

}  // namespace lamina::server
