// Status: the outcome of anything that may fail while the program keeps running. Every step and
// every message returns one; start-up and setup throw base/error.h's Error instead. Codes are the
// usual gRPC set, so that the control plane maps them one to one. Immutable value, safe to copy
// between threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace lamina {

enum class StatusCode : uint8_t {
  kOk,
  kCancelled,
  kUnknown,
  kInvalidArgument,
  kDeadlineExceeded,
  kNotFound,
  kAlreadyExists,
  kPermissionDenied,
  kResourceExhausted,
  kFailedPrecondition,
  kAborted,
  kOutOfRange,
  kUnimplemented,
  kInternal,
  kUnavailable,
  kDataLoss,
  kUnauthenticated,
};

// The code's name as gRPC spells it, "INVALID_ARGUMENT".
std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  // `message` says what failed, with values, and what to do about it. `code` is not kOk.
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status ok_status() { return {}; }

  [[nodiscard]] bool ok() const { return code_ == StatusCode::kOk; }
  [[nodiscard]] StatusCode code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  // "INVALID_ARGUMENT: message", or "OK".
  [[nodiscard]] std::string to_string() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

Status invalid_argument(std::string message);
Status deadline_exceeded(std::string message);
Status not_found(std::string message);
Status resource_exhausted(std::string message);
Status failed_precondition(std::string message);
Status unavailable(std::string message);
Status unimplemented(std::string message);
Status internal_error(std::string message);
Status data_loss(std::string message);
Status cancelled(std::string message);
Status unauthenticated(std::string message);

}  // namespace lamina

// Returns from the enclosing function with the Status (or into a Result) if `expression` is not ok.
#define LAMINA_RETURN_IF_ERROR(expression)                                    \
  do {                                                                        \
    if (::lamina::Status lamina_status_ = (expression); !lamina_status_.ok()) \
      return lamina_status_;                                                  \
  } while (false)
