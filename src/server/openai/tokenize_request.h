// TokenizeRequest and DetokenizeRequest: the bodies of POST /tokenize and POST /detokenize, parsed
// and validated, and their answers. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/openai/chat_request.h"
#include "server/openai/generation_options.h"

namespace lamina::server {

struct TokenizeRequest {
  std::variant<std::string, ChatPrompt> prompt;  // "prompt" (or "content"), or "messages"
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

// All throw ApiError.
TokenizeRequest parse_tokenize_request(std::string_view body, const ParseContext& context);
std::vector<int32_t> parse_detokenize_request(std::string_view body, const ParseContext& context);

// {"count","max_model_len","tokens","token_strs"}; token_strs is null unless given.
std::string tokenize_answer(const std::vector<int32_t>& ids,
                            int32_t max_model_len,
                            const std::vector<std::string>* token_strs);
// {"prompt"}
std::string detokenize_answer(const std::string& text);

}  // namespace lamina::server
