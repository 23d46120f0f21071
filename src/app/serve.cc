#include "app/serve.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "app/placement.h"
#include "app/signals.h"
#include "app/version.h"
#include "base/log.h"
#include "server/http_server.h"

namespace lamina::app {
namespace {

// "models/SmolLM2.gguf" serves as "SmolLM2", a folder under its own name.
std::string default_model_name(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  return name.extension() == ".gguf" ? name.stem().string() : name.filename().string();
}

// The template's variables that come from the tokenizer join those of the request.
server::ChatRenderer chat_renderer(const LoadedModel& model) {
  if (!model.chat_template) return nullptr;
  return [&model](const std::string& context_json) -> Result<std::string> {
    nlohmann::json context = nlohmann::json::parse(context_json);
    context.emplace("bos_token", model.bos_token);
    context.emplace("eos_token", model.eos_token);
    return model.chat_template->render(context.dump());
  };
}

server::ServerConfig server_config(const ServeOptions& options, const LoadedModel& model) {
  server::ServerConfig config;
  config.host = options.host;
  config.port = options.port;
  config.insecure = options.insecure;
  config.api_keys = options.api_keys;
  config.allowed_origins = options.allowed_origins;
  config.served_model_names = {options.served_model_name.empty()
                                   ? default_model_name(options.model.model)
                                   : options.served_model_name};
  config.model_root = options.model.model;
  config.version = kVersion;
  config.vocab_size = model.files->config().vocab_size;
  config.generation_defaults = model.files->generation_defaults();
  config.render_chat = chat_renderer(model);
  if (options.seed != 0) config.seed = options.seed;
  return config;
}

}  // namespace

int run_serve(const ServeOptions& options, const std::string& log_level) {
  const TimePoint begin = steady_clock().now();
  std::optional<ExitOnTermination> starting(std::in_place);
  const ProcessCpus cpus = settle(options.placement.cpus);
  const MemoryFromNodes memory(memory_nodes(cpus));
  const LoadedModel model = load_model(options.model, options.chat_template, cpus);
  const server::ServerConfig config = server_config(options, model);
  config.validate();  // before processes are started for nothing
  const Placement placement =
      place(options.placement, cpus, model, options.max_queued_requests, log_level);
  server::HttpServer server(config, *placement.engine, model.tokenizer.get());
  starting.reset();  // from here on the process ends in order
  server.start();
  log_info("ready after {:.2f} s: http://{}:{}",
           std::chrono::duration<double>(steady_clock().now() - begin).count(),
           options.host,
           server.port());
  wait_for_termination();
  unblock_termination_signals();
  log_info("ending: running requests get {:.0f} s", options.shutdown_timeout);
  const Deadline deadline = Deadline::after(std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(options.shutdown_timeout)));
  server.stop(deadline);
  placement.engine->shutdown(deadline);
  return 0;
}

}  // namespace lamina::app
