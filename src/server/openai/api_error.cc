#include "server/openai/api_error.h"

#include <nlohmann/json.hpp>

namespace lamina::server {

namespace {

int http_status_of(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
    case StatusCode::kFailedPrecondition:
      return 400;
    case StatusCode::kUnauthenticated:
      return 401;
    case StatusCode::kPermissionDenied:
      return 403;
    case StatusCode::kNotFound:
      return 404;
    case StatusCode::kAlreadyExists:
      return 409;
    case StatusCode::kUnimplemented:
      return 501;
    case StatusCode::kResourceExhausted:
    case StatusCode::kUnavailable:
    case StatusCode::kCancelled:
    case StatusCode::kAborted:
    case StatusCode::kDeadlineExceeded:
      return 503;
    case StatusCode::kOk:
    case StatusCode::kUnknown:
    case StatusCode::kInternal:
    case StatusCode::kDataLoss:
      break;
  }
  return 500;
}

std::string_view type_of(int http_status) {
  if (http_status == 503) return "service_unavailable_error";
  return http_status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

std::string ApiError::body() const {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  Json error;
  error["message"] = what();
  error["type"] = type_;
  error["param"] = or_null(param_);
  error["code"] = or_null(code_);
  return Json{{"error", std::move(error)}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ApiError bad_field(std::string_view param, const std::string& message, std::string_view code) {
  return {400, "invalid_request_error", message, param, code};
}

ApiError bad_body(const std::string& message) {
  return {400, "invalid_request_error", message};
}

ApiError error_from_status(const Status& status, std::string_view param) {
  const int http_status = http_status_of(status.code());
  const std::string_view code =
      status.code() == StatusCode::kResourceExhausted ? "server_overloaded" : "";
  return {
      http_status, type_of(http_status), status.message(), http_status == 400 ? param : "", code};
}

}  // namespace lamina::server
