#include "server/routes.h"

namespace lamina::server {

namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

constexpr Route kRoutes[] = {
    {Endpoint::kCompletions, "/v1/completions", true},
    {Endpoint::kChatCompletions, "/v1/chat/completions", true},
    {Endpoint::kModels, "/v1/models", false},
    {Endpoint::kTokenize, "/tokenize", true},
    {Endpoint::kDetokenize, "/detokenize", true},
    {Endpoint::kHealth, "/health", false},
    {Endpoint::kVersion, "/version", false},
    {Endpoint::kMetrics, "/metrics", false},
};
constexpr Route kModelRoute = {Endpoint::kModel, "/v1/models/{id}", false};

}  // namespace

bool Route::allows(std::string_view method) const {
  return is_post ? method == "POST" : method == "GET" || method == "HEAD";
}

std::string_view Route::allowed_methods() const {
  return is_post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

const Route* find_route(std::string_view path) {
  for (const Route& route : kRoutes) {
    if (route.name == path) return &route;
  }
  const bool names_model =
      path.substr(0, kModelPrefix.size()) == kModelPrefix && path.size() > kModelPrefix.size();
  return names_model ? &kModelRoute : nullptr;
}

std::string_view model_id_of(std::string_view path) {
  return path.substr(kModelPrefix.size());
}

}  // namespace lamina::server
