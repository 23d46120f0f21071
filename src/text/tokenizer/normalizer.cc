#include "text/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <tuple>

#include "base/check.h"
#include "text/tokenizer/utf8.h"

namespace lamina {
namespace {

constexpr size_t kMaxNormalizedBytes = size_t{128} << 20;

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

utf8proc_propval_t combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Sorts marks by combining class; those of one class keep their order.
void sort_marks(std::span<utf8proc_int32_t> marks) {
  std::vector<std::tuple<utf8proc_propval_t, size_t, utf8proc_int32_t>> keyed;
  keyed.reserve(marks.size());
  for (size_t i = 0; i < marks.size(); ++i) {
    keyed.emplace_back(combining_class(marks[i]), i, marks[i]);
  }
  std::sort(keyed.begin(), keyed.end());
  for (size_t i = 0; i < marks.size(); ++i) marks[i] = std::get<2>(keyed[i]);
}

// utf8proc sorts marks by swapping neighbours, quadratic for a text of nothing but marks; so only
// the decomposition and the composition are its, the order is made here.
void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  auto begin = code_points.begin();
  while (begin != code_points.end()) {
    begin = std::find_if(begin, code_points.end(), is_mark);
    const auto end = std::find_if_not(begin, code_points.end(), is_mark);
    if (end - begin > 1) sort_marks({begin, end});
    begin = end;
  }
}

void append_nfc(std::string_view run, std::string& out) {
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(run.size());
  for (size_t i = 0; i < run.size(); i += utf8_size(run[i])) {
    std::array<utf8proc_int32_t, 8> parts{};  // the longest canonical decomposition has four
    int last_boundclass = 0;
    const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(decode_utf8(run, i)),
        parts.data(),
        parts.size(),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE),
        &last_boundclass);
    LAMINA_CHECK(num_parts >= 0 && num_parts <= static_cast<utf8proc_ssize_t>(parts.size()));
    code_points.insert(code_points.end(), parts.begin(), parts.begin() + num_parts);
  }
  order_marks(code_points);
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(code_points.data(),
                               static_cast<utf8proc_ssize_t>(code_points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  LAMINA_CHECK(length >= 0);
  code_points.resize(static_cast<size_t>(length));
  for (const utf8proc_int32_t c : code_points) append_utf8(out, static_cast<char32_t>(c));
}

struct StepApplier {
  std::string text;

  Status operator()(const NfcStep&) {
    text = to_nfc(text);
    return Status::ok_status();
  }

  Status operator()(const PrependStep& step) {
    if (!text.empty()) text.insert(0, step.prefix);
    return Status::ok_status();
  }

  Status operator()(const ReplaceStep& step) {
    size_t count = 0;
    for (size_t at = text.find(step.from); at != std::string::npos;
         at = text.find(step.from, at + step.from.size())) {
      ++count;
    }
    if (count * step.to.size() + text.size() > kMaxNormalizedBytes) {
      return resource_exhausted("the text becomes longer than 128 MiB by normalisation");
    }
    if (count > 0) text = replace_all(text, step.from, step.to);
    return Status::ok_status();
  }
};

}  // namespace

Result<std::string> Normalizer::apply(std::string_view text) const {
  StepApplier applier{std::string(text)};
  for (const NormalizerStep& step : steps_) LAMINA_RETURN_IF_ERROR(std::visit(applier, step));
  return std::move(applier.text);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, begin)) {
    out.append(text, begin, at - begin).append(to);
    begin = at + from.size();
  }
  return out.append(text, begin);
}

std::string to_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  size_t position = 0;
  while (position < text.size()) {
    // ASCII stays as it is and never joins what stands before it; the last of a run may join the
    // mark behind it.
    size_t other = position;
    while (other < text.size() && is_ascii(text[other])) ++other;
    if (other == text.size()) return out.append(text, position);
    const size_t run = other > position ? other - 1 : other;
    out.append(text, position, run - position);
    size_t end = other;
    while (end < text.size() && !is_ascii(text[end])) ++end;
    append_nfc(text.substr(run, end - run), out);
    position = end;
  }
  return out;
}

}  // namespace lamina
