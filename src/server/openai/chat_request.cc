#include "server/openai/chat_request.h"

#include <fmt/format.h>

#include <array>

#include <nlohmann/json.hpp>

#include "server/openai/json_fields.h"

namespace lamina::server {

namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 16> kChatFields = {"messages",
                                                          "top_logprobs",
                                                          "tools",
                                                          "tool_choice",
                                                          "parallel_tool_calls",
                                                          "add_generation_prompt",
                                                          "continue_final_message",
                                                          "chat_template",
                                                          "chat_template_kwargs",
                                                          "documents",
                                                          "functions",
                                                          "function_call",
                                                          "modalities",
                                                          "audio",
                                                          "reasoning_effort",
                                                          "echo"};

// A list of text parts becomes their texts, one a line: templates of text models want a string.
std::string join_text_parts(const Json& parts, const std::string& name) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part_name = fmt::format("{}[{}]", name, i);
    const Json& part = parts[i];
    if (!part.is_object()) {
      throw bad_field(part_name,
                      fmt::format("{} must be an object, got {}", part_name, excerpt(part)));
    }
    const FieldReader fields(part, part_name + ".");
    const std::string type = fields.string("type").value_or("");
    if (type != "text") {
      throw bad_field(part_name + ".type",
                      fmt::format("{}.type must be \"text\", got {}: this server has text models "
                                  "only",
                                  part_name,
                                  excerpt(type)));
    }
    const auto part_text = fields.string("text");
    if (!part_text) throw bad_field(part_name + ".text", part_name + ".text is missing");
    if (i > 0) text += '\n';
    text += *part_text;
  }
  return text;
}

// Templates want a call's arguments as an object; clients send back the string that they got.
void parse_call_arguments(Json* message) {
  const auto calls = message->find("tool_calls");
  if (calls == message->end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    const auto arguments = call["function"].find("arguments");
    if (arguments == call["function"].end() || !arguments->is_string()) continue;
    try {
      Json parsed = parse_json_object(arguments->get_ref<const std::string&>());
      *arguments = std::move(parsed);
    } catch (const ApiError&) {
      continue;  // Not an object: the template gets the string.
    }
  }
}

Json normalise_message(const Json& message, size_t message_idx) {
  const std::string name = fmt::format("messages[{}]", message_idx);
  if (!message.is_object()) {
    throw bad_field(name, fmt::format("{} must be an object, got {}", name, excerpt(message)));
  }
  const FieldReader fields(message, name + ".");
  if (fields.string("role").value_or("").empty()) {
    throw bad_field(name + ".role", name + ".role is missing");
  }
  Json normal = message;
  const Json* content = fields.find("content");
  const std::string content_name = name + ".content";
  if (content == nullptr) {
    if (fields.find("tool_calls") == nullptr) {
      throw bad_field(content_name, content_name + " is missing");
    }
    normal["content"] = "";
  } else if (content->is_array()) {
    normal["content"] = join_text_parts(*content, content_name);
  } else if (!content->is_string()) {
    throw bad_field(content_name,
                    fmt::format("{} must be a string or a list of text parts, got {}",
                                content_name,
                                excerpt(*content)));
  }
  parse_call_arguments(&normal);
  return normal;
}

Json parse_messages(const FieldReader& fields) {
  const Json* value = fields.find("messages");
  if (value == nullptr) throw bad_field("messages", "messages is missing");
  if (!value->is_array() || value->empty() || value->size() > kMaxMessages) {
    throw bad_field(
        "messages",
        fmt::format(
            "messages must be a list of 1 to {} messages, got {}", kMaxMessages, excerpt(*value)));
  }
  Json messages = Json::array();
  for (const Json& message : *value) {
    messages.push_back(normalise_message(message, messages.size()));
  }
  return messages;
}

// The tools for the template; null where there are none or they are not to be used.
Json parse_tools(const FieldReader& fields) {
  const Json* choice = fields.find("tool_choice");
  if (choice != nullptr && *choice != "none" && *choice != "auto") {
    throw bad_field("tool_choice",
                    fmt::format("tool_choice must be \"none\" or \"auto\", got {}: calls cannot "
                                "be forced",
                                excerpt(*choice)),
                    "unsupported_parameter");
  }
  const Json* tools = fields.find("tools");
  if (tools == nullptr || (tools->is_array() && tools->empty())) return nullptr;
  bool are_objects = tools->is_array();
  for (const Json& tool : *tools) are_objects = are_objects && tool.is_object();
  if (!are_objects) {
    throw bad_field("tools",
                    fmt::format("tools must be a list of objects, got {}", excerpt(*tools)));
  }
  return choice != nullptr && *choice == "none" ? Json(nullptr) : *tools;
}

// Variables that a request brings for its template; ours cannot be replaced.
void add_template_variables(const FieldReader& fields, Json* variables) {
  if (const Json* extra = fields.find("chat_template_kwargs")) {
    if (!extra->is_object()) {
      throw bad_field(
          "chat_template_kwargs",
          fmt::format("chat_template_kwargs must be an object, got {}", excerpt(*extra)));
    }
    variables->update(*extra);
  }
  if (const Json* documents = fields.find("documents")) {
    if (!documents->is_array()) {
      throw bad_field("documents",
                      fmt::format("documents must be a list, got {}", excerpt(*documents)));
    }
    (*variables)["documents"] = *documents;
  }
  if (const auto effort = fields.string("reasoning_effort")) {
    (*variables)["reasoning_effort"] = *effort;
  }
}

std::string_view trim_end(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

}  // namespace

ChatPrompt parse_chat_prompt(const Json& body, const ParseContext& context) {
  if (!context.has_tokenizer) {
    throw bad_field("messages",
                    "the server runs with --skip-tokenizer-init: send token ids to "
                    "/v1/completions");
  }
  refuse_field(body, "chat_template", "in a request is refused; the server's own is used");
  const FieldReader fields(body);
  ChatPrompt prompt;
  prompt.add_special_tokens = fields.boolean("add_special_tokens", false);
  const bool continues = fields.boolean("continue_final_message", false);
  const bool add_generation_prompt = fields.boolean("add_generation_prompt", !continues);
  if (continues && add_generation_prompt) {
    throw bad_field("continue_final_message",
                    "continue_final_message and add_generation_prompt exclude each other");
  }
  Json messages = parse_messages(fields);
  if (continues) prompt.continued_text = messages.back()["content"].get<std::string>();

  Json variables = Json::object();
  add_template_variables(fields, &variables);
  variables["messages"] = std::move(messages);
  variables["tools"] = parse_tools(fields);
  variables["add_generation_prompt"] = add_generation_prompt;
  variables["bos_token"] = context.bos_token;
  variables["eos_token"] = context.eos_token;
  prompt.template_context = variables.dump(-1, ' ', false, Json::error_handler_t::replace);
  return prompt;
}

ChatRequest parse_chat_request(std::string_view text, const ParseContext& context) {
  const Json body = parse_json_object(text);
  const FieldReader fields(body);
  log_ignored_fields(body, kChatFields);
  ChatRequest request;
  request.options = parse_generation_options(body, context);
  for (const char* name : {"functions", "function_call", "audio", "echo"}) {
    refuse_field(body, name, "is not supported");
  }
  if (const Json* modalities = fields.find("modalities");
      modalities != nullptr && *modalities != Json::array({"text"})) {
    throw bad_field("modalities",
                    "modalities other than [\"text\"] are not supported",
                    "unsupported_parameter");
  }
  request.prompt = parse_chat_prompt(body, context);

  const bool logprobs = fields.boolean("logprobs", false);
  const auto top_logprobs = fields.integer("top_logprobs", 0, kMaxLogprobs);
  if (top_logprobs.value_or(0) > 0 && !logprobs) {
    throw bad_field("top_logprobs", "top_logprobs is only allowed when logprobs is true");
  }
  if (logprobs) {
    request.options.generation.sampling.num_logprobs =
        static_cast<int32_t>(top_logprobs.value_or(0));
  }
  if (request.options.max_tokens == 0) {
    throw bad_field("max_completion_tokens", "max_completion_tokens must be at least 1, got 0");
  }
  return request;
}

Result<std::string> finish_chat_prompt(const ChatPrompt& prompt, std::string rendered) {
  if (!prompt.continued_text) return rendered;
  // Templates often trim messages, so the trimmed text is looked for; the model continues after
  // it, with the white space that the template kept of it.
  const std::string_view trimmed = trim_end(*prompt.continued_text);
  const size_t start = rendered.rfind(trimmed);
  if (trimmed.empty() || start == std::string::npos) {
    return invalid_argument(
        "continue_final_message: the chat template does not reproduce the final message");
  }
  std::string_view kept = *prompt.continued_text;
  if (rendered.compare(start, kept.size(), kept) != 0) kept = trimmed;
  rendered.resize(start + kept.size());
  return rendered;
}

}  // namespace lamina::server
