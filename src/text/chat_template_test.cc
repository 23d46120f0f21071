#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "support/paths.h"
#include "text/chat_template_cases.h"

namespace lamina {
namespace {

std::string render(const std::string& source, const std::string& context = "{}") {
  return ChatTemplate(source).render(context).value_or_throw();
}

Status render_error(const std::string& source, const TemplateLimits& limits = {}) {
  return ChatTemplate(source, limits).render("{}").status();
}

std::string parse_error(const std::string& source) {
  try {
    const ChatTemplate parsed(source);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
    return error.what();
  }
  return "parsed";
}

TEST(ChatTemplate, SnippetsRenderAsInJinja2) {
  const nlohmann::ordered_json goldens = test::read_json("text/chat_templates/snippets.json");
  const std::string context = goldens.at("context").dump();
  ASSERT_GT(goldens.at("cases").size(), 100U);
  for (const nlohmann::ordered_json& golden : goldens.at("cases"))
    test::expect_rendering(golden.at("template").get<std::string>(), context, golden);
}

TEST(ChatTemplate, DefaultModelsTemplateRendersAsInJinja2) {
  const std::string source =
      read_text_file(test::fixture_path("text/chat_templates/smollm2.jinja"), 1 << 20);
  test::expect_chats("text/chat_templates/default_model.json", "smollm2", source);
}

TEST(ChatTemplate, RefusesWhatTheSubsetLacksByNameAndPlace) {
  EXPECT_EQ(parse_error("a\n {% include 'x' %}"),
            "chat template line 2, column 5: tag 'include' is not supported");
  EXPECT_EQ(parse_error("é{{ x|groupby('y') }}"),
            "chat template line 1, column 7: filter 'groupby' is not supported");
  EXPECT_EQ(parse_error("{{ x is escaped }}"),
            "chat template line 1, column 9: test 'escaped' is not supported");
  EXPECT_EQ(parse_error("{% for a in b recursive %}{% endfor %}"),
            "chat template line 1, column 15: a recursive loop is not supported");
  EXPECT_EQ(parse_error("{{ lipsum() }}"),
            "chat template line 1, column 4: 'lipsum' is not supported");
  EXPECT_EQ(parse_error("{{ f(*a) }}"),
            "chat template line 1, column 6: '*' before an argument is not supported");
  EXPECT_EQ(parse_error("{{ x|trim(1, 2) }}"),
            "chat template line 1, column 6: 'trim' takes at most 1 arguments");
  EXPECT_EQ(parse_error("{{ x|join(sep='a') }}"),
            "chat template line 1, column 6: 'join' has no parameter 'sep'");
}

TEST(ChatTemplate, RefusesBrokenSyntax) {
  for (const char* source : {"{{ x",
                             "{% if x %}",
                             "{% endif %}",
                             "{{ }}",
                             "{{ 'x }}",
                             "{{ a b }}",
                             "{{ (1 }}",
                             "{{ 1) }}",
                             "{% if x %}{% endfor %}",
                             "{# x",
                             "{% raw %}x",
                             "{{ 1 + }}",
                             "{% set %}",
                             "{% for x %}{% endfor %}",
                             "{% break %}",
                             "{{ x is }}",
                             "{{ 99999999999999999999 }}",
                             "{{ '\\ud800' }}",
                             "{% set loop = 1 %}",
                             "{{ a.b.. }}",
                             "{% macro m(a=1, b) %}{% endmacro %}",
                             "\xff"})
    EXPECT_NE(parse_error(source), "parsed") << source;
}

TEST(ChatTemplate, RaisedMessagesPassUnchanged) {
  const Status status = render_error("\n\n{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "roles must alternate");
}

TEST(ChatTemplate, OtherErrorsNameTheLine) {
  EXPECT_EQ(render_error("\n{{ messages[0] }}").message(),
            "'messages' is undefined (chat template, line 2)");
  EXPECT_EQ(render_error("{% set a = {} %}\n\n{{ a.b.c }}").message(),
            "'dict object' has no attribute 'b' (chat template, line 3)");
}

TEST(ChatTemplate, RefusesBadContexts) {
  const ChatTemplate parsed("{{ x }}");
  for (const std::string context : {"",
                                    "[]",
                                    "{",
                                    "{\"x\": 99999999999999999999}",
                                    "{\"x\": 18446744073709551615}",
                                    "{\"x\": \"\xff\"}"})
    EXPECT_EQ(parsed.render(context).status().code(), StatusCode::kInvalidArgument) << context;
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  EXPECT_EQ(parsed.render("{\"x\": " + deep + "}").status().code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, DuplicateKeysKeepTheLastValueInTheFirstPlace) {
  EXPECT_EQ(render("{{ x }}", R"({"x": {"a": 1, "b": 2, "a": 3}})"), "{'a': 3, 'b': 2}");
}

TEST(ChatTemplate, StopsAtItsLimits) {
  const TemplateLimits small = {.max_steps = 10'000, .max_depth = 16, .max_output_bytes = 10'000};
  for (const char* source :
       {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
        "{% endfor %}",
        "{{ 'abc' * 9999999999 }}",
        "{{ [1] * 9999999999 }}",
        "{% for i in range(999) %}{{ 'abcdefghijklmnopqrstuvwxyz' }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{% if ns.x == ns.y %}{% endif %}",
        "{{ range(100001) }}",
        "{{ ('a' * 9000).replace('', 'b' * 9000) }}",
        "{{ ('x,' * 4000).split(',')|join('y' * 4000) }}"})
    EXPECT_EQ(render_error(source, small).code(), StatusCode::kResourceExhausted) << source;
}

// Work on long texts counts where it is done, though the template's text is short.
TEST(ChatTemplate, LongTextsCostSteps) {
  const TemplateLimits small = {.max_steps = 10'000, .max_output_bytes = 10'000};
  const std::string setup = "{% set b = 'ab' * 4900 %}{% set c = 'ab' * 4900 %}{% set d = {} %}";
  for (const auto& [count, expression] : {std::pair("900", "{b: 1}"),
                                          std::pair("900", "d.get(b)"),
                                          std::pair("900", "b.startswith(c)"),
                                          std::pair("900", "b is sameas c"),
                                          std::pair("40", "b|upper"),
                                          std::pair("40", "b.title()"),
                                          std::pair("40", "b is lower"),
                                          std::pair("40", "b|int"),
                                          std::pair("40", "b|tojson")}) {
    const std::string source =
        setup + "{% for i in range(" + count + ") %}{% set x = " + expression + " %}{% endfor %}";
    EXPECT_EQ(render_error(source, small).code(), StatusCode::kResourceExhausted) << expression;
  }
}

TEST(ChatTemplate, BoundsNamesAndArguments) {
  const std::string name(300, 'n');
  EXPECT_NE(parse_error("{{ " + name + " }}").find("a name of more than 256"), std::string::npos);
  std::string list = "a0";
  for (int i = 1; i < 256; ++i) list += ",a" + std::to_string(i);
  EXPECT_NE(parse_error("{{ f(" + list + ") }}").find("more than 255 arguments"),
            std::string::npos);
  EXPECT_NE(parse_error("{% macro m(" + list + ") %}{% endmacro %}").find("255 parameters"),
            std::string::npos);
  EXPECT_EQ(parse_error("{{ f(" + list.substr(0, list.rfind(',')) + ") }}"), "parsed");
}

TEST(ChatTemplate, BoundsTheDepthOfValues) {
  const Status status = render_error(
      "{% set ns = namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x] %}{% endfor %}");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, BoundsTheDepthOfSource) {
  for (const auto& [open, close] : {std::pair("(", ")"), std::pair("[", "]"), std::pair("-", "")}) {
    std::string source = "{{ ";
    for (int i = 0; i < 100'000; ++i) source += open;
    source += "1";
    for (int i = 0; i < 100'000; ++i) source += close;
    EXPECT_NE(parse_error(source + " }}").find("nested deeper"), std::string::npos) << open;
  }
  std::string blocks;
  for (int i = 0; i < 10'000; ++i) blocks += "{% if x %}";
  EXPECT_NE(parse_error(blocks).find("nested deeper"), std::string::npos);
  std::string chain = "{{ x";
  for (int i = 0; i < 10'000; ++i) chain += ".y";
  EXPECT_NE(parse_error(chain + " }}").find("nested deeper"), std::string::npos);
}

TEST(ChatTemplate, CyclesThroughNamespacesAreFreed) {
  EXPECT_EQ(
      render("{% set ns = namespace() %}{% set ns.self = ns %}{% set ns.list = [ns] %}"
             "{% macro m() %}{% endmacro %}{% set ns.m = m %}{{ ns.self.self.m is defined }}"),
      "True");
}

TEST(ChatTemplate, StrftimeNowIsTheLocalTime) {
  // The day may change between the two readings, so either side of the rendering will do.
  const auto today = [] {
    const std::time_t now = std::time(nullptr);
    std::tm time{};
    localtime_r(&now, &time);
    char text[64];
    return std::string(text, std::strftime(text, sizeof text, "%d %b %Y|%j", &time));
  };
  const std::string before = today();
  const std::string rendered = render("{{ strftime_now('%d %b %Y|%j') }}");
  EXPECT_TRUE(rendered == before || rendered == today()) << rendered;
  EXPECT_EQ(render_error("{{ strftime_now('%9999d') }}").code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, IsReusable) {
  const ChatTemplate parsed("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}");
  EXPECT_EQ(*parsed.render("{}"), "1");
  EXPECT_EQ(*parsed.render("{}"), "1");
}

}  // namespace
}  // namespace lamina
