#include "model/weights/printable.h"

#include <fmt/format.h>

namespace lamina {

std::string printable(std::string_view text) {
  constexpr size_t kMaxShown = 80;
  std::string shown = "'";
  for (const char c : text.substr(0, kMaxShown)) {
    if (c >= ' ' && c <= '~') {
      shown += c;
    } else {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (text.size() > kMaxShown) shown += "...";
  return shown + "'";
}

}  // namespace lamina
