// Text inside XML and HTML: of elements and of quoted attributes. The one place where it is
// escaped.
#pragma once

#include <string>
#include <string_view>

namespace lamina {

inline std::string xml_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace lamina
