#include "server/server_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/host.h"

namespace lamina::server {

namespace {

void require(bool condition, const char* what) {
  if (!condition) throw Error(StatusCode::kInvalidArgument, fmt::format("server: {}", what));
}

}  // namespace

void ServerConfig::validate() const {
  require(!host.empty(), "host is empty");
  require(!served_model_names.empty(), "there is no served model name");
  for (const std::string& name : served_model_names) {
    require(!name.empty(), "a served model name is empty");
  }
  for (const std::string& key : api_keys) require(!key.empty(), "an API key is empty");
  require(vocab_size > 0, "vocab_size must be above 0");
  require(num_handler_threads > 0, "num_handler_threads must be above 0");
  require(max_connections > 0, "max_connections must be above 0");
  require(max_sequences > 0, "max_sequences must be above 0");
  require(std::min({idle_timeout,
                    header_timeout,
                    body_timeout,
                    write_timeout,
                    keep_alive_interval,
                    log_interval}) > Duration::zero(),
          "timeouts and intervals must be above 0");
  if (is_loopback_host(host) || !api_keys.empty() || insecure) return;
  throw Error(
      StatusCode::kFailedPrecondition,
      fmt::format("refusing to listen on {} without an API key: anyone who reaches it could "
                  "use the model. Give --api-key, or --insecure if that is meant",
                  host));
}

}  // namespace lamina::server
