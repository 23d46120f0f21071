// Error: what start-up and setup throw (bad file, bad flag, port in use). It carries the same code
// and message as a Status. It is caught at thread entry, request handler and main, nowhere else;
// the step loop never throws.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "base/status.h"

namespace lamina {

class Error : public std::runtime_error {
 public:
  Error(StatusCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  explicit Error(const Status& status) : Error(status.code(), status.message()) {}

  [[nodiscard]] StatusCode code() const { return code_; }
  [[nodiscard]] Status status() const { return {code_, what()}; }

 private:
  StatusCode code_;
};

// Throws Error unless `status` is ok: for setup code that calls a Status function.
inline void throw_if_error(const Status& status) {
  if (!status.ok()) throw Error(status);
}

}  // namespace lamina
