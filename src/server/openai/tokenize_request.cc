#include "server/openai/tokenize_request.h"

#include <nlohmann/json.hpp>

#include "server/openai/json_fields.h"

namespace lamina::server {

namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

void require_tokenizer(const ParseContext& context) {
  if (!context.has_tokenizer) {
    throw bad_body("the server runs with --skip-tokenizer-init: it has no tokenizer");
  }
}

std::string dump(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

TokenizeRequest parse_tokenize_request(std::string_view text, const ParseContext& context) {
  require_tokenizer(context);
  const Json body = parse_json_object(text);
  const FieldReader fields(body);
  resolve_model(body, context);
  TokenizeRequest request;
  request.return_token_strs = fields.boolean("return_token_strs", false);
  if (fields.find("messages") != nullptr) {
    ChatPrompt prompt = parse_chat_prompt(body, context);
    request.add_special_tokens = prompt.add_special_tokens;
    request.prompt = std::move(prompt);
    return request;
  }
  request.add_special_tokens = fields.boolean("add_special_tokens", true);
  auto prompt = fields.string("prompt");
  if (!prompt) prompt = fields.string("content");
  if (!prompt) throw bad_field("prompt", "either prompt or messages is needed");
  request.prompt = *std::move(prompt);
  return request;
}

std::vector<int32_t> parse_detokenize_request(std::string_view text, const ParseContext& context) {
  require_tokenizer(context);
  const Json body = parse_json_object(text);
  resolve_model(body, context);
  auto ids = FieldReader(body).token_ids("tokens", context.vocab_size, kMaxJsonValues);
  if (!ids) throw bad_field("tokens", "tokens is missing");
  return *std::move(ids);
}

std::string tokenize_answer(const std::vector<int32_t>& ids,
                            int32_t max_model_len,
                            const std::vector<std::string>* token_strs) {
  OrderedJson answer;
  answer["count"] = ids.size();
  answer["max_model_len"] = max_model_len;
  answer["tokens"] = ids;
  answer["token_strs"] = token_strs == nullptr ? OrderedJson(nullptr) : OrderedJson(*token_strs);
  return dump(answer);
}

std::string detokenize_answer(const std::string& text) {
  return dump(OrderedJson{{"prompt", text}});
}

}  // namespace lamina::server
