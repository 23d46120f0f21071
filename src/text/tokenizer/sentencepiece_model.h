// SentencePiece's tokenizer.model, BPE only.
#pragma once

#include <memory>
#include <string_view>

#include "text/tokenizer.h"

namespace lamina {

// The file's bytes, and tokenizer_config.json (may be empty), which may turn BOS and EOS on or off;
// as in the models that ship such files, BOS is on and EOS is off unless it says so. Throws Error
// kInvalidArgument.
std::unique_ptr<Tokenizer> parse_sentencepiece_model(std::string_view bytes,
                                                     std::string_view config);

}  // namespace lamina
