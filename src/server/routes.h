// Routes: the paths the server knows and what may be done there. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lamina::server {

enum class Endpoint : uint8_t {
  kCompletions,
  kChatCompletions,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kHealth,
  kVersion,
  kMetrics,
};

struct Route {
  Endpoint endpoint;
  std::string_view name;  // also the metrics' label: "/v1/models/{id}"
  bool is_post;           // else GET and HEAD

  [[nodiscard]] bool allows(std::string_view method) const;
  [[nodiscard]] std::string_view allowed_methods() const;
};

// nullptr for an unknown path.
const Route* find_route(std::string_view path);

// The id in /v1/models/{id}; ids may hold slashes.
std::string_view model_id_of(std::string_view path);

}  // namespace lamina::server
