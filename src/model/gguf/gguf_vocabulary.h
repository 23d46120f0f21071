// The vocabulary of a GGUF file (metadata tokenizer.ggml.*) in the form that text/ takes.
#pragma once

#include "model/gguf/gguf_metadata.h"
#include "text/tokenizer.h"

namespace lamina {

// Throws Error kInvalidArgument naming the key that is missing or has another length than the list
// of tokens. Whether the tokenizer model is supported is for make_gguf_tokenizer() to say.
GgufVocabulary read_gguf_vocabulary(const GgufMetadata& metadata);

}  // namespace lamina
