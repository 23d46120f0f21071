// Hugging Face's tokenizer.json. What is not supported is refused by name rather than passed over.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/tokenizer/bpe_tokenizer.h"

namespace lamina {

// Both files as text; `config` (tokenizer_config.json) may be empty: it only says which tokens are
// BOS and EOS. Throws Error kInvalidArgument.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view json, std::string_view config);

// The parts of the file, each null or an object with a "type". All throw Error kInvalidArgument.
std::vector<NormalizerStep> parse_normalizer(const nlohmann::json& normalizer);

struct PreTokenizerParts {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;
};
PreTokenizerParts parse_pre_tokenizer(const nlohmann::json& pre_tokenizer);

Decoding parse_decoder(const nlohmann::json& decoder);

struct SurroundingIds {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};
SurroundingIds parse_post_processor(const nlohmann::json& post_processor,
                                    const Vocabulary& vocabulary);

}  // namespace lamina
