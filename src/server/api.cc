#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>

#include <nlohmann/json.hpp>

#include "server/openai/token_text.h"
#include "server/openai/tokenize_request.h"

namespace lamina::server {

namespace {

using Json = nlohmann::ordered_json;

constexpr int32_t kDefaultCompletionTokens = 16;

int64_t unix_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

uint64_t random_u64() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ParseContext make_parse_context(const ServerConfig& config, const Tokenizer* tokenizer) {
  ParseContext context;
  context.served_model_names = config.served_model_names;
  context.defaults = config.generation_defaults;
  context.vocab_size = config.vocab_size;
  context.has_tokenizer = tokenizer != nullptr;
  const auto token_string = [&](std::optional<int32_t> id) {
    return id ? std::string(tokenizer->token_bytes(*id)) : std::string();
  };
  if (tokenizer != nullptr) {
    context.bos_token = token_string(tokenizer->bos_id());
    context.eos_token = token_string(tokenizer->eos_id());
  }
  return context;
}

ResponseContext make_response_context(ApiKind kind,
                                      const GenerationOptions& options,
                                      const Tokenizer* tokenizer) {
  ResponseContext response;
  response.kind = kind;
  response.id = (kind == ApiKind::kChat ? "chatcmpl-" : "cmpl-") + make_unique_id();
  response.created = unix_seconds();
  response.model = options.model;
  response.n = options.generation.n;
  response.wants_logprobs = options.generation.sampling.num_logprobs >= 0;
  response.skip_special_tokens = options.generation.skip_special_tokens;
  response.return_token_ids = options.return_token_ids;
  response.include_usage = options.include_usage;
  response.continuous_usage = options.continuous_usage;
  response.tokenizer = tokenizer;
  return response;
}

Json model_json(const std::string& name,
                const std::string& root,
                int64_t created,
                int32_t max_model_len) {
  Json model;
  model["id"] = name;
  model["object"] = "model";
  model["created"] = created;
  model["owned_by"] = "lamina";
  model["root"] = root.empty() ? name : root;
  model["parent"] = nullptr;
  model["max_model_len"] = max_model_len;
  model["permission"] = Json::array();
  return model;
}

}  // namespace

std::string make_unique_id() {
  return fmt::format("{:016x}{:08x}", random_u64(), static_cast<uint32_t>(random_u64()));
}

Api::Api(const ServerConfig& config, Engine& engine, const Tokenizer* tokenizer)
    : config_(config),
      engine_(engine),
      tokenizer_(tokenizer),
      context_(make_parse_context(config, tokenizer)),
      created_(unix_seconds()),
      seed_(config.seed ? *config.seed : random_u64()) {}

ApiError server_is_full() {
  return error_from_status(resource_exhausted("the server's queue is full; try again later"));
}

PreparedCall Api::prepare(ApiKind kind, std::string_view body) {
  return kind == ApiKind::kChat ? prepare_chat(body) : prepare_completion(body);
}

std::vector<int32_t> Api::encode(std::string_view text,
                                 bool add_special_tokens,
                                 std::string_view param) const {
  Result<std::vector<int32_t>> ids =
      tokenizer_->encode(text, {.add_special_tokens = add_special_tokens, .parse_special = true});
  if (ids.ok()) return *std::move(ids);
  // Too much text is the request's fault, not the server's load.
  if (ids.status().code() == StatusCode::kResourceExhausted) {
    throw bad_field(param, ids.status().message(), "context_length_exceeded");
  }
  throw error_from_status(ids.status(), param);
}

std::string Api::render(const ChatPrompt& prompt) const {
  if (!config_.render_chat) {
    throw bad_field("messages",
                    "the model has no chat template: use /v1/completions, or start the server with "
                    "--chat-template");
  }
  Result<std::string> rendered = config_.render_chat(prompt.template_context);
  if (rendered.ok()) rendered = finish_chat_prompt(prompt, *std::move(rendered));
  if (rendered.ok()) return *std::move(rendered);
  throw bad_field("messages", "chat template: " + rendered.status().message());
}

void Api::set_max_tokens(const GenerationOptions& options,
                         int32_t default_max_tokens,
                         std::string_view param,
                         GenerationRequest* request) const {
  const auto num_prompt_tokens = static_cast<int64_t>(request->prompt_ids.size());
  const int32_t limit = engine_.max_model_len();
  if (num_prompt_tokens == 0) throw bad_field(param, "the prompt has no tokens");
  const int64_t room = limit - num_prompt_tokens;
  const int64_t wanted = options.max_tokens.value_or(1);
  if (wanted > room) {
    throw bad_field(
        param,
        fmt::format("the model's context holds {} tokens, and the request needs {}: {} in the "
                    "prompt and {}{} to generate. Shorten the prompt or lower max_tokens",
                    limit,
                    num_prompt_tokens + wanted,
                    num_prompt_tokens,
                    options.max_tokens ? "" : "at least ",
                    wanted),
        "context_length_exceeded");
  }
  request->max_tokens = options.max_tokens.value_or(
      static_cast<int32_t>(std::min<int64_t>(default_max_tokens, room)));
  request->min_tokens = std::min(request->min_tokens, request->max_tokens);
}

PreparedCall Api::prepare_completion(std::string_view body) {
  CompletionRequest request = parse_completion_request(body, context_);
  const GenerationOptions& options = request.options;
  require_room_for(request.prompts.size(), options.generation.n);
  PreparedCall call = begin_call(ApiKind::kCompletion, options);
  call.response.echo = request.echo;
  for (Prompt& prompt : request.prompts) {
    PromptInfo info;
    if (auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) {
      info.ids = std::move(*ids);
      if (request.echo && tokenizer_ != nullptr) {
        info.text = tokenizer_->decode(info.ids, options.generation.skip_special_tokens);
      }
    } else {
      auto& text = std::get<std::string>(prompt);
      info.ids = encode(text, request.add_special_tokens, "prompt");
      if (request.echo) info.text = std::move(text);
    }
    add_prompt(options, kDefaultCompletionTokens, "prompt", std::move(info), &call);
  }
  return call;
}

PreparedCall Api::prepare_chat(std::string_view body) {
  const ChatRequest request = parse_chat_request(body, context_);
  require_room_for(1, request.options.generation.n);
  PreparedCall call = begin_call(ApiKind::kChat, request.options);
  PromptInfo info;
  info.ids = encode(render(request.prompt), request.prompt.add_special_tokens, "messages");
  constexpr int32_t kRestOfContext = std::numeric_limits<int32_t>::max();
  add_prompt(request.options, kRestOfContext, "messages", std::move(info), &call);
  return call;
}

void Api::require_room_for(size_t num_prompts, int32_t n) const {
  const int64_t num_sequences = static_cast<int64_t>(num_prompts) * n;
  if (num_sequences > config_.max_sequences) {
    throw bad_field("n",
                    fmt::format("the request asks for {} sequences ({} prompts, n = {}); at most "
                                "{} are allowed",
                                num_sequences,
                                num_prompts,
                                n,
                                config_.max_sequences));
  }
  if (engine_.is_full(static_cast<int32_t>(num_sequences))) throw server_is_full();
}

PreparedCall Api::begin_call(ApiKind kind, const GenerationOptions& options) const {
  PreparedCall call;
  call.stream = options.stream;
  call.response = make_response_context(kind, options, tokenizer_);
  return call;
}

void Api::add_prompt(const GenerationOptions& options,
                     int32_t default_max_tokens,
                     std::string_view param,
                     PromptInfo info,
                     PreparedCall* call) {
  GenerationRequest request = options.generation;
  request.id = call->response.id;
  request.prompt_ids = info.ids;
  request.sampling.seed = options.seed ? *options.seed : Rng(seed_, num_draws_++).next_u64();
  set_max_tokens(options, default_max_tokens, param, &request);
  call->requests.push_back(std::move(request));
  call->response.prompts.push_back(std::move(info));
}

std::string Api::tokenize(std::string_view body) const {
  const TokenizeRequest request = parse_tokenize_request(body, context_);
  const auto* chat = std::get_if<ChatPrompt>(&request.prompt);
  const std::string text = chat != nullptr ? render(*chat) : std::get<std::string>(request.prompt);
  const std::vector<int32_t> ids =
      encode(text, request.add_special_tokens, chat != nullptr ? "messages" : "prompt");
  if (!request.return_token_strs) return tokenize_answer(ids, engine_.max_model_len(), nullptr);
  std::vector<std::string> token_strs;
  token_strs.reserve(ids.size());
  for (const int32_t id : ids) token_strs.push_back(token_text(tokenizer_, id));
  return tokenize_answer(ids, engine_.max_model_len(), &token_strs);
}

std::string Api::detokenize(std::string_view body) const {
  const std::vector<int32_t> ids = parse_detokenize_request(body, context_);
  return detokenize_answer(tokenizer_->decode(ids, /*skip_special_tokens=*/false));
}

std::string Api::models() const {
  Json list;
  list["object"] = "list";
  Json& data = list["data"] = Json::array();
  for (const std::string& name : config_.served_model_names) {
    data.push_back(model_json(name, config_.model_root, created_, engine_.max_model_len()));
  }
  return dump(list);
}

std::string Api::model(const std::string& name) const {
  const auto& names = config_.served_model_names;
  if (std::find(names.begin(), names.end(), name) == names.end()) throw unknown_model(name, names);
  return dump(model_json(name, config_.model_root, created_, engine_.max_model_len()));
}

std::string Api::version() const {
  return dump(Json{{"version", config_.version}});
}

HttpReply Api::health(bool is_draining) const {
  const Status status = is_draining ? unavailable("the server is shutting down") : engine_.health();
  HttpReply reply;
  if (status.ok()) {
    reply.body = dump(Json{{"status", "ok"}});
    return reply;
  }
  reply.status = 503;
  Json body;
  body["status"] = "unavailable";
  body["error"] = Json{{"message", status.message()},
                       {"type", "service_unavailable_error"},
                       {"param", nullptr},
                       {"code", nullptr}};
  Json& workers = body["workers"] = Json::array();
  for (const EngineStats::Worker& worker : engine_.stats().workers) {
    workers.push_back(Json{{"name", worker.name},
                           {"state", worker.state},
                           {"epoch", worker.epoch},
                           {"restarts", worker.num_restarts}});
  }
  reply.body = dump(body);
  return reply;
}

}  // namespace lamina::server
