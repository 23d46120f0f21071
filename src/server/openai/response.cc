#include "server/openai/response.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "server/openai/token_text.h"

namespace lamina::server {

namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json finish_reason_json(const std::optional<FinishReason>& reason) {
  if (!reason) return nullptr;
  return *reason == FinishReason::kStop ? "stop" : "length";
}

Json stop_reason_json(const std::optional<std::variant<int32_t, std::string>>& reason) {
  if (!reason) return nullptr;
  return std::visit([](const auto& value) { return Json(value); }, *reason);
}

Json usage_json(const ResponseProgress& progress) {
  Json usage;
  usage["prompt_tokens"] = progress.num_prompt_tokens();
  usage["completion_tokens"] = progress.num_generated_tokens();
  usage["total_tokens"] = progress.num_prompt_tokens() + progress.num_generated_tokens();
  return usage;
}

Json head_json(const ResponseContext& context, bool is_chunk) {
  Json head;
  head["id"] = context.id;
  head["object"] = context.kind == ApiKind::kCompletion ? "text_completion"
                   : is_chunk                           ? "chat.completion.chunk"
                                                        : "chat.completion";
  head["created"] = context.created;
  head["model"] = context.model;
  head["system_fingerprint"] = nullptr;
  return head;
}

void add_prompt_logprobs(const std::vector<int32_t>& prompt_ids,
                         const PromptScores& scores,
                         CompletionLogprobs* logprobs) {
  if (!prompt_ids.empty()) logprobs->add_unscored(prompt_ids.front());
  for (const ScoredToken& token : scores.tokens) logprobs->add(token);
}

Json chat_logprobs_json(const ResponseContext& context, const std::vector<ScoredToken>& tokens) {
  Json content = Json::array();
  for (const ScoredToken& token : tokens) {
    content.push_back(chat_logprob(context.tokenizer, token));
  }
  Json logprobs;
  logprobs["content"] = std::move(content);
  logprobs["refusal"] = nullptr;
  return logprobs;
}

Json token_ids_json(const std::vector<ScoredToken>& tokens) {
  Json ids = Json::array();
  for (const ScoredToken& token : tokens) ids.push_back(token.id);
  return ids;
}

// Usage where the options want it, `choice` as the chunk's only one.
std::string finish_chunk(const ResponseContext& context,
                         const ResponseProgress& progress,
                         Json chunk,
                         Json choice) {
  chunk["choices"] = Json::array({std::move(choice)});
  if (context.continuous_usage) {
    chunk["usage"] = usage_json(progress);
  } else if (context.include_usage) {
    chunk["usage"] = nullptr;
  }
  return sse_event(dump(chunk));
}

}  // namespace

ResponseProgress::ResponseProgress(const ResponseContext& context)
    : n_(context.n), num_choices_(context.num_choices()), num_open_choices_(context.num_choices()) {
  for (const PromptInfo& prompt : context.prompts) {
    num_prompt_tokens_ += static_cast<int64_t>(prompt.ids.size());
  }
}

int32_t ResponseProgress::add(int32_t prompt_idx, const GenerationDelta& delta) {
  const int32_t choice_idx = prompt_idx * n_ + delta.choice_idx;
  LAMINA_CHECK(delta.choice_idx >= 0 && delta.choice_idx < n_ && choice_idx < num_choices_,
               "the engine named a choice that the call has not");
  num_generated_tokens_ += static_cast<int64_t>(delta.tokens.size());
  if (delta.finish_reason) --num_open_choices_;
  return choice_idx;
}

ResponseBody::ResponseBody(ResponseContext context)
    : context_(std::move(context)),
      progress_(context_),
      scores_(context_.prompts.size()),
      choices_(static_cast<size_t>(context_.num_choices())) {}

void ResponseBody::add(int32_t prompt_idx, PromptScores scores) {
  scores_.at(static_cast<size_t>(prompt_idx)) = std::move(scores);
}

void ResponseBody::add(int32_t prompt_idx, GenerationDelta delta) {
  Choice& choice = choices_[static_cast<size_t>(progress_.add(prompt_idx, delta))];
  choice.text += delta.text;
  if (context_.wants_logprobs || context_.return_token_ids) {
    for (ScoredToken& token : delta.tokens) choice.tokens.push_back(std::move(token));
  }
  if (!delta.finish_reason) return;
  choice.finish_reason = delta.finish_reason;
  choice.stop_reason = std::move(delta.stop_reason);
}

std::string ResponseBody::json() const {
  Json body = head_json(context_, false);
  Json& choices = body["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    const size_t prompt_idx = i / static_cast<size_t>(context_.n);
    Json entry;
    entry["index"] = i;
    if (context_.kind == ApiKind::kChat) {
      entry["message"] = Json{{"role", "assistant"}, {"content", choice.text}};
      entry["logprobs"] =
          context_.wants_logprobs ? chat_logprobs_json(context_, choice.tokens) : Json(nullptr);
    } else {
      entry["text"] = (context_.echo ? context_.prompts[prompt_idx].text : "") + choice.text;
      entry["logprobs"] = completion_logprobs_json(prompt_idx, choice);
    }
    entry["finish_reason"] = finish_reason_json(choice.finish_reason);
    entry["stop_reason"] = stop_reason_json(choice.stop_reason);
    if (context_.return_token_ids) {
      if (context_.kind == ApiKind::kCompletion) {
        entry["prompt_token_ids"] = context_.prompts[prompt_idx].ids;
      }
      entry["token_ids"] = token_ids_json(choice.tokens);
    }
    choices.push_back(std::move(entry));
  }
  body["usage"] = usage_json(progress_);
  if (context_.kind == ApiKind::kChat && context_.return_token_ids) {
    body["prompt_token_ids"] = context_.prompts.front().ids;
  }
  return dump(body);
}

Json ResponseBody::completion_logprobs_json(size_t prompt_idx, const Choice& choice) const {
  if (!context_.wants_logprobs) return nullptr;
  CompletionLogprobs lists(context_.tokenizer, context_.skip_special_tokens, 0);
  if (context_.echo) {
    add_prompt_logprobs(context_.prompts[prompt_idx].ids, scores_[prompt_idx], &lists);
  }
  for (const ScoredToken& token : choice.tokens) lists.add(token);
  return lists.take();
}

ResponseStream::ResponseStream(ResponseContext context)
    : context_(std::move(context)),
      progress_(context_),
      scores_(context_.prompts.size()),
      choices_(static_cast<size_t>(context_.num_choices())) {}

void ResponseStream::add(int32_t prompt_idx, PromptScores scores) {
  scores_.at(static_cast<size_t>(prompt_idx)) = std::move(scores);
}

// The first chunk of a choice: the role, or the echoed prompt. Nothing where neither is due.
std::string ResponseStream::open_choice(int32_t prompt_idx, int32_t choice_idx) {
  const PromptInfo& prompt = context_.prompts[static_cast<size_t>(prompt_idx)];
  Choice& state = choices_[static_cast<size_t>(choice_idx)];
  state.is_open = true;
  const bool is_chat = context_.kind == ApiKind::kChat;
  if (!is_chat && !context_.echo && !context_.return_token_ids) return {};
  Json choice;
  choice["index"] = choice_idx;
  Json logprobs;
  if (is_chat) {
    choice["delta"] = Json{{"role", "assistant"}, {"content", ""}};
  } else {
    choice["text"] = context_.echo ? prompt.text : "";
    if (context_.echo && context_.wants_logprobs) {
      CompletionLogprobs lists(context_.tokenizer, context_.skip_special_tokens, 0);
      add_prompt_logprobs(prompt.ids, scores_[static_cast<size_t>(prompt_idx)], &lists);
      state.text_offset = lists.text_offset();
      logprobs = lists.take();
    }
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = nullptr;
  Json chunk = head_json(context_, true);
  if (context_.return_token_ids) {
    (is_chat ? chunk : choice)["prompt_token_ids"] = prompt.ids;
    choice["token_ids"] = Json::array();
  }
  return finish_chunk(context_, progress_, std::move(chunk), std::move(choice));
}

std::string ResponseStream::add(int32_t prompt_idx, const GenerationDelta& delta) {
  const int32_t choice_idx = progress_.add(prompt_idx, delta);
  Choice& state = choices_[static_cast<size_t>(choice_idx)];
  std::string events;
  if (!state.is_open) events = open_choice(prompt_idx, choice_idx);
  const bool shows_tokens =
      !delta.tokens.empty() &&
      (context_.wants_logprobs || context_.return_token_ids || context_.continuous_usage);
  if (delta.text.empty() && !delta.finish_reason && !shows_tokens) return events;

  Json choice;
  choice["index"] = choice_idx;
  Json logprobs;
  if (context_.kind == ApiKind::kChat) {
    Json& content = choice["delta"] = Json::object();
    if (!delta.text.empty() || !delta.finish_reason) content["content"] = delta.text;
    if (context_.wants_logprobs && !delta.tokens.empty()) {
      logprobs = chat_logprobs_json(context_, delta.tokens);
    }
  } else {
    choice["text"] = delta.text;
    if (context_.wants_logprobs && !delta.tokens.empty()) {
      CompletionLogprobs lists(context_.tokenizer, context_.skip_special_tokens, state.text_offset);
      for (const ScoredToken& token : delta.tokens) lists.add(token);
      state.text_offset = lists.text_offset();
      logprobs = lists.take();
    }
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = finish_reason_json(delta.finish_reason);
  if (delta.finish_reason) choice["stop_reason"] = stop_reason_json(delta.stop_reason);
  if (context_.return_token_ids) choice["token_ids"] = token_ids_json(delta.tokens);
  return events + finish_chunk(context_, progress_, head_json(context_, true), std::move(choice));
}

std::string ResponseStream::finish() const {
  std::string events;
  if (context_.include_usage) {
    Json chunk = head_json(context_, true);
    chunk["choices"] = Json::array();
    chunk["usage"] = usage_json(progress_);
    events = sse_event(dump(chunk));
  }
  return events + sse_event("[DONE]");
}

std::string sse_event(std::string_view data) {
  std::string event = "data: ";
  event += data;
  event += "\n\n";
  return event;
}

std::string sse_error(const ApiError& error) {
  return sse_event(error.body());
}

}  // namespace lamina::server
