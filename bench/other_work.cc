#include "other_work.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace lamina::bench {
namespace {

// Of one process, if it is this one or a child of it: user and system ticks (proc(5), stat).
double own_ticks(const std::filesystem::path& process) {
  std::ifstream file(process / "stat");
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  char state = 0;
  int parent = 0;
  fields >> state >> parent;
  const bool is_own = parent == ::getpid() || process.filename() == std::to_string(::getpid());
  if (!is_own) return 0;
  constexpr int kBetween = 9;  // from the parent to the user's ticks
  std::string skipped;
  for (int i = 0; i < kBetween; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return user + system;
}

}  // namespace

OtherWork::Ticks OtherWork::now() const {
  Ticks ticks;
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name;
    fields >> name;
    const auto is_it = [&](int cpu) { return name == "cpu" + std::to_string(cpu); };
    if (std::ranges::none_of(cpus_, is_it)) continue;
    for (int field = 0; field < 8; ++field) {  // user nice system idle iowait irq softirq steal
      double value = 0;
      fields >> value;
      ticks.all += value;
      if (field != 3 && field != 4) ticks.busy += value;
    }
  }
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") == std::string::npos) {
      ticks.own += own_ticks(entry.path());
    }
  }
  return ticks;
}

double OtherWork::share() const {
  const Ticks end = now();
  const double all = end.all - begin_.all;
  if (all <= 0) return 0;
  return std::max(0.0, (end.busy - begin_.busy - (end.own - begin_.own)) / all);
}

}  // namespace lamina::bench
