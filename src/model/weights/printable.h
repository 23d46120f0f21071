// Text from hostile files made fit for a one-line message. Used by every reader of this room.
#pragma once

#include <string>
#include <string_view>

namespace lamina {

// 'text' in quotes: bytes other than printable ASCII as \xNN, cut after 80 characters.
std::string printable(std::string_view text);

}  // namespace lamina
