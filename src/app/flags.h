// Flags: adds options to one subcommand, each with its twin in the environment (LAMINA_*). Where a
// flag of one value stands several times the last one counts. Used where the command line is read.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace lamina::app {

class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}

  template <typename T>
  CLI::Option* add(const std::string& flag, T& value, const std::string& help) {
    return with_twin(flag, app_.add_option(flag, value, help)->capture_default_str())->take_last();
  }
  CLI::Option* add_list(const std::string& flag,
                        std::vector<std::string>& values,
                        const std::string& help);
  CLI::Option* add_switch(const std::string& flag, bool& value, const std::string& help);
  CLI::Option* add_parsed(const std::string& flag,
                          const std::function<void(const std::string&)>& parse,
                          const std::string& help);
  // All values of a list, which a comma parts.
  CLI::Option* add_parsed_list(const std::string& flag,
                               const std::function<void(const std::vector<std::string>&)>& parse,
                               const std::string& help);
  // "cpu", "cuda" or "cuda:N".
  CLI::Option* add_device(const std::string& flag, std::string& name, const std::string& help);
  CLI::Option* add_bytes(const std::string& flag, uint64_t& value, const std::string& help);

 private:
  static CLI::Option* with_twin(const std::string& flag, CLI::Option* option);

  CLI::App& app_;
};

}  // namespace lamina::app
