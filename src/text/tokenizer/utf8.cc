#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

// Bytes of the character that `lead` opens; 0 if no character starts so.
size_t size_of_lead(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

}  // namespace

Utf8Step next_utf8(std::string_view bytes) {
  const auto lead = static_cast<unsigned char>(bytes[0]);
  const size_t size = size_of_lead(lead);
  if (size == 0) return {Utf8State::kInvalid, 1};
  // Only the second byte has a narrower range, and only after these four leads.
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Utf8State::kIncomplete, static_cast<uint8_t>(i)};
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (byte < low || byte > high) return {Utf8State::kInvalid, static_cast<uint8_t>(i)};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8State::kComplete, static_cast<uint8_t>(size)};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    if (step.state != Utf8State::kComplete) return false;
    text.remove_prefix(step.size);
  }
  return true;
}

size_t utf8_size(char lead) {
  return size_of_lead(static_cast<unsigned char>(lead));
}

char32_t decode_utf8(std::string_view text, size_t position) {
  const size_t size = utf8_size(text[position]);
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  if (size == 1) return byte(0);
  char32_t code_point = byte(0) & (0xFFU >> (size + 1));
  for (size_t i = 1; i < size; ++i) code_point = (code_point << 6) | (byte(i) & 0x3FU);
  return code_point;
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto tail = [&](int shift) {
    text.push_back(static_cast<char>(0x80U | ((code_point >> shift) & 0x3FU)));
  };
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    text.push_back(static_cast<char>(0xC0U | (code_point >> 6)));
    tail(0);
  } else if (code_point < 0x10000) {
    text.push_back(static_cast<char>(0xE0U | (code_point >> 12)));
    tail(6);
    tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0U | (code_point >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

void drain_utf8(std::string& pending, std::string& text) {
  std::string_view rest = pending;
  while (!rest.empty()) {
    const Utf8Step step = next_utf8(rest);
    if (step.state == Utf8State::kIncomplete) break;
    text += step.state == Utf8State::kComplete ? rest.substr(0, step.size) : kReplacementCharacter;
    rest.remove_prefix(step.size);
  }
  pending.erase(0, pending.size() - rest.size());
}

}  // namespace lamina
