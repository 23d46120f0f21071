#include "app/flags.h"

#include <algorithm>
#include <cctype>

#include "app/command_line.h"
#include "device/device.h"

namespace lamina::app {
namespace {

std::string environment_name(const std::string& flag) {
  std::string name = "LAMINA_" + flag.substr(flag.find_first_not_of('-'));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(c));
  });
  return name;
}

}  // namespace

CLI::Option* Flags::add_list(const std::string& flag,
                             std::vector<std::string>& values,
                             const std::string& help) {
  return with_twin(flag, app_.add_option(flag, values, help));
}

CLI::Option* Flags::add_switch(const std::string& flag, bool& value, const std::string& help) {
  return with_twin(flag, app_.add_flag(flag, value, help));
}

CLI::Option* Flags::add_parsed(const std::string& flag,
                               const std::function<void(const std::string&)>& parse,
                               const std::string& help) {
  return with_twin(flag, app_.add_option_function<std::string>(flag, parse, help))->take_last();
}

CLI::Option* Flags::add_parsed_list(
    const std::string& flag,
    const std::function<void(const std::vector<std::string>&)>& parse,
    const std::string& help) {
  CLI::Option* const option = app_.add_option_function<std::vector<std::string>>(flag, parse, help);
  return with_twin(flag, option)->delimiter(',');
}

CLI::Option* Flags::add_device(const std::string& flag,
                               std::string& name,
                               const std::string& help) {
  return add(flag, name, help)->check([](const std::string& text) {
    const Result<Device> parsed = parse_device(text);
    return parsed.ok() ? std::string() : parsed.status().message();
  });
}

CLI::Option* Flags::add_bytes(const std::string& flag, uint64_t& value, const std::string& help) {
  return add_parsed(flag, [&value](const std::string& text) { value = parse_size(text); }, help);
}

CLI::Option* Flags::with_twin(const std::string& flag, CLI::Option* option) {
  return option->envname(environment_name(flag.substr(flag.find(',') + 1)));
}

}  // namespace lamina::app
