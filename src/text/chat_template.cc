#include "text/chat_template.h"

#include <fmt/format.h>

#include <ctime>
#include <utility>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/json.h"
#include "text/jinja/parser.h"
#include "text/jinja/unicode.h"

namespace lamina {
namespace {

constexpr size_t kMaxSourceBytes = 1024UL * 1024UL;

jinja::Template parse(const std::string& source, const TemplateLimits& limits) {
  if (source.size() > kMaxSourceBytes) {
    throw Error(
        StatusCode::kInvalidArgument,
        fmt::format("chat template: {} bytes, more than {}", source.size(), kMaxSourceBytes));
  }
  if (!jinja::is_valid_utf8(source))
    throw Error(StatusCode::kInvalidArgument, "chat template: not UTF-8");
  return jinja::parse_template(source, limits.max_depth);
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Template parsed;
};

ChatTemplate::ChatTemplate(const std::string& source, const TemplateLimits& limits)
    : program_(std::make_unique<const Program>(Program{parse(source, limits)})), limits_(limits) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

// Below here errors are exceptions, one per rendering at most; this is where they end.
Result<std::string> ChatTemplate::render(const std::string& context_json) const {
  jinja::Runtime runtime(limits_, std::time(nullptr));
  int32_t line = 0;
  try {
    const jinja::Value context = jinja::parse_json(runtime, context_json);
    if (!context.is(jinja::Kind::kDict)) return invalid_argument("the context is not an object");
    jinja::Evaluator evaluator(runtime, program_->parsed, context);
    try {
      return evaluator.run();
    } catch (const Error&) {
      line = evaluator.line();
      throw;
    }
  } catch (const jinja::TemplateRaised& raised) {
    return raised.status();
  } catch (const Error& error) {
    if (line == 0) return error.status();
    return Status(error.code(), fmt::format("{} (chat template, line {})", error.what(), line));
  }
}

}  // namespace lamina
