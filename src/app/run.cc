#include "app/run.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <random>

#include <nlohmann/json.hpp>

#include "app/placement.h"
#include "base/error.h"

namespace lamina::app {
namespace {

constexpr Duration kShutdownGrace = std::chrono::seconds(1);

// Prints one answer as it comes; knows when it is over.
class Printer {
 public:
  EventSink sink() {
    return [this](GenerationEvent event) {
      const std::lock_guard lock(mutex_);
      if (const auto* delta = std::get_if<GenerationDelta>(&event)) {
        std::fputs(delta->text.c_str(), stdout);
        std::fflush(stdout);
        text_ += delta->text;
        is_over_ = delta->finish_reason.has_value();
      } else if (const auto* failure = std::get_if<GenerationFailure>(&event)) {
        failure_ = failure->status;
        is_over_ = true;
      }
      if (is_over_) over_.notify_all();
    };
  }
  Result<std::string> wait() {
    std::unique_lock lock(mutex_);
    over_.wait(lock,
               [this] { return is_over_; });  // the engine ends every request: it has the deadlines
    std::fputs("\n", stdout);
    if (!failure_.ok()) return failure_;
    return text_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  std::string text_;
  Status failure_;
  bool is_over_ = false;
};

class Chat {
 public:
  Chat(const RunOptions& options, const LoadedModel& model, Engine& engine)
      : options_(options),
        model_(model),
        engine_(engine),
        seed_(options.seed.value_or(std::random_device()())) {
    if (!options.system_prompt.empty()) say("system", options.system_prompt);
  }

  Status answer(const std::string& user_text) {
    say("user", user_text);
    LAMINA_ASSIGN_OR_RETURN(GenerationRequest request, make_request(user_text));
    Printer printer;
    LAMINA_ASSIGN_OR_RETURN(const uint64_t handle,
                            engine_.submit(std::move(request), printer.sink()));
    static_cast<void>(handle);
    LAMINA_ASSIGN_OR_RETURN(const std::string text, printer.wait());
    say("assistant", text);
    return {};
  }

 private:
  void say(const char* role, const std::string& content) {
    messages_.push_back({{"role", role}, {"content", content}});
  }

  // A model without a chat template continues the text itself.
  Result<GenerationRequest> make_request(const std::string& user_text) {
    GenerationRequest request;
    request.id = "run";
    std::string prompt = user_text;
    const bool has_template = model_.chat_template.has_value();
    if (has_template) {
      const nlohmann::json context = {{"messages", messages_},
                                      {"add_generation_prompt", true},
                                      {"bos_token", model_.bos_token},
                                      {"eos_token", model_.eos_token}};
      LAMINA_ASSIGN_OR_RETURN(prompt, model_.chat_template->render(context.dump()));
    }
    // A template writes its own special tokens.
    LAMINA_ASSIGN_OR_RETURN(
        request.prompt_ids,
        model_.tokenizer->encode(prompt,
                                 {.add_special_tokens = !has_template, .parse_special = true}));
    const auto room = engine_.max_model_len() - static_cast<int32_t>(request.prompt_ids.size());
    if (room <= 0)
      return invalid_argument("the conversation fills the model's context: start a new one");
    request.max_tokens = std::min(options_.max_tokens, room);
    request.sampling = sampling();
    return request;
  }

  SamplingParams sampling() {
    const GenerationDefaults& defaults = model_.files->generation_defaults();
    SamplingParams params;
    params.temperature = options_.temperature >= 0 ? static_cast<float>(options_.temperature)
                                                   : defaults.temperature.value_or(1.0F);
    params.top_p = defaults.top_p.value_or(params.top_p);
    params.top_k = defaults.top_k.value_or(params.top_k);
    params.min_p = defaults.min_p.value_or(params.min_p);
    params.repetition_penalty = defaults.repetition_penalty.value_or(params.repetition_penalty);
    params.seed = seed_++;
    return params;
  }

  const RunOptions& options_;
  const LoadedModel& model_;
  Engine& engine_;
  uint64_t seed_;
  nlohmann::json messages_ = nlohmann::json::array();
};

int interact(Chat& chat) {
  std::fputs("Type a message; an empty line or Ctrl-D ends the chat.\n", stderr);
  std::string line;
  while (true) {
    std::fputs("> ", stderr);
    if (!std::getline(std::cin, line) || line.empty()) return 0;
    const Status status = chat.answer(line);
    if (!status.ok()) {
      std::fputs(fmt::format("error: {}\n", status.message()).c_str(), stderr);
      return 1;
    }
  }
}

}  // namespace

int run_chat(const RunOptions& options, const std::string& log_level) {
  if (options.model.skip_tokenizer_init) {
    throw Error(StatusCode::kInvalidArgument,
                "lamina run needs a tokenizer: leave --skip-tokenizer-init out");
  }
  const ProcessCpus cpus = settle(options.placement.cpus);
  const MemoryFromNodes memory(memory_nodes(cpus));
  const LoadedModel model = load_model(options.model, options.chat_template, cpus);
  const Placement placement =
      place(options.placement, cpus, model, /*max_queued_sequences=*/1, log_level);
  Chat chat(options, model, *placement.engine);
  int exit_code = 0;
  if (options.prompt.empty()) {
    exit_code = interact(chat);
  } else {
    throw_if_error(chat.answer(options.prompt));
  }
  placement.engine->shutdown(Deadline::after(kShutdownGrace));
  return exit_code;
}

}  // namespace lamina::app
