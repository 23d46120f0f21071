// ApiError: a refusal in the API's own terms: HTTP status and the fields of OpenAI's error body.
// Thrown while a request is parsed and prepared, caught by the request handler, which answers with
// it. The one table from StatusCode to HTTP status is here. Immutable value.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "base/status.h"

namespace lamina::server {

class ApiError : public std::runtime_error {
 public:
  // `param` and `code` may be empty: they are null in the body then.
  ApiError(int http_status,
           std::string_view type,
           const std::string& message,
           std::string_view param = {},
           std::string_view code = {})
      : std::runtime_error(message),
        http_status_(http_status),
        type_(type),
        param_(param),
        code_(code) {}

  [[nodiscard]] int http_status() const { return http_status_; }
  [[nodiscard]] const std::string& type() const { return type_; }
  [[nodiscard]] const std::string& param() const { return param_; }
  [[nodiscard]] const std::string& code() const { return code_; }
  // {"error":{"message","type","param","code"}}; bytes that are not UTF-8 come out as U+FFFD.
  [[nodiscard]] std::string body() const;

 private:
  int http_status_;
  std::string type_;
  std::string param_;
  std::string code_;
};

// 400 about one field.
ApiError bad_field(std::string_view param, const std::string& message, std::string_view code = {});
// 400 about the whole body.
ApiError bad_body(const std::string& message);
// What an engine, tokenizer or template answered; `status` is not ok. kInvalidArgument names
// `param`.
ApiError error_from_status(const Status& status, std::string_view param = {});

}  // namespace lamina::server
