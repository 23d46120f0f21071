#include "app/command_line.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace lamina::app {
namespace {

std::optional<Options> parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "lamina");
  std::vector<char*> pointers;
  pointers.reserve(arguments.size());
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int exit_code = 0;
  return parse_command_line(static_cast<int>(pointers.size()), pointers.data(), exit_code);
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) { std::ofstream(path_) << text; }
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;
  ~ConfigFile() { std::filesystem::remove(path_); }
  [[nodiscard]] std::string path() const { return path_; }

 private:
  std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                ("lamina_config_" + std::to_string(::getpid()) + ".yaml");
};

TEST(CommandLine, ReadsFlagsAndDefaults) {
  const auto options = parse({"serve",
                              "model.gguf",
                              "--port",
                              "9000",
                              "--max-model-len",
                              "4k",
                              "--attention-worker",
                              "a:1",
                              "--attention-worker",
                              "b:2"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Command::kServe);
  EXPECT_EQ(options->serve.model.model, "model.gguf");
  EXPECT_EQ(options->serve.port, 9000);
  EXPECT_EQ(options->serve.model.max_model_len, 4000);
  EXPECT_EQ(options->serve.placement.attention_worker, (std::vector<std::string>{"a:1", "b:2"}));
  EXPECT_EQ(options->serve.placement.attention_workers, 2);
}

TEST(CommandLine, FlagsBeatEnvironmentBeatsFile) {
  const ConfigFile file("model: m\nport: 1\nmax-num-seqs: 2\nblock-size: 32\napi-key: [a, b]\n");
  // NOLINTBEGIN(concurrency-mt-unsafe): the test has one thread
  ::setenv("LAMINA_PORT", "3", 1);
  ::setenv("LAMINA_MAX_NUM_SEQS", "4", 1);
  const auto options = parse({"serve", "--config", file.path(), "--port", "5"});
  ::unsetenv("LAMINA_PORT");
  ::unsetenv("LAMINA_MAX_NUM_SEQS");
  // NOLINTEND(concurrency-mt-unsafe)
  ASSERT_TRUE(options);
  EXPECT_EQ(options->serve.model.model, "m");
  EXPECT_EQ(options->serve.port, 5);
  EXPECT_EQ(options->serve.model.max_num_seqs, 4);
  EXPECT_EQ(options->serve.model.block_size, 32);
  EXPECT_EQ(options->serve.api_keys, (std::vector<std::string>{"a", "b"}));
}

TEST(CommandLine, TakesTheNamesOfQuantisedCaches) {
  for (const char* name : {"int8", "fp8", "fp8_e4m3"}) {
    const auto options = parse({"serve", "m", "--kv-cache-dtype", name});
    ASSERT_TRUE(options) << name;
    EXPECT_EQ(options->serve.model.kv_cache_dtype, name);
  }
  EXPECT_FALSE(parse({"serve", "m", "--kv-cache-dtype", "fp8_e5m2"}));
}

TEST(CommandLine, TakesPlacesOfThreads) {
  const auto options = parse({"attention-worker", "--cpu-bind", "0-3,8", "--numa-node", "1"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->attention_worker.cpus.cpu_bind, "0-3,8");
  EXPECT_EQ(options->attention_worker.cpus.numa_node, 1);
  const auto serve = parse({"serve", "m", "--threads", "4", "--transport", "loopback"});
  ASSERT_TRUE(serve);
  EXPECT_EQ(serve->serve.placement.cpus.threads, 4);
  EXPECT_EQ(serve->serve.placement.cpus.cpu_bind, "none");
  EXPECT_EQ(serve->serve.placement.cpus.numa_node, -1);
  EXPECT_FALSE(parse({"serve", "m", "--numa-node", "-2"}));
}

TEST(CommandLine, ReadsWhatAPlanIsAskedFor) {
  const auto options = parse({"plan", "llama3-70b", "--price", "l4=0.5", "--rate", "2", "--svg"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Command::kPlan);
  EXPECT_EQ(options->plan.model, "llama3-70b");
  EXPECT_EQ(options->plan.prices, std::vector<std::string>{"l4=0.5"});
  EXPECT_EQ(options->plan.rate, 2.0);
  EXPECT_EQ(options->plan.attention_device, "h20");
  EXPECT_FALSE(parse({"plan", "llama3-70b", "--svg", "--json"}));
  EXPECT_FALSE(parse({"plan", "llama3-70b", "--max-model-devices", "0"}));
  EXPECT_FALSE(parse({"profile", "llama3-70b"}));  // where to?
}

TEST(CommandLine, NamesAnUnknownKeyOfTheFile) {
  const ConfigFile file("prot: 1\n");
  try {
    parse({"serve", "m", "--config", file.path()});
    FAIL() << "an unknown key was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'prot'"), std::string::npos);
  }
}

TEST(CommandLine, HidesSecretsInTheEffectiveSet) {
  const auto options = parse({"serve", "m", "--api-key", "hush", "--cluster-secret", "hush2"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->effective.find("hush"), std::string::npos);
  EXPECT_NE(options->effective.find("--api-key (set)"), std::string::npos);
}

TEST(CommandLine, ReadsTheConverter) {
  const auto options = parse({"convert",
                              "config.json",
                              "--svg",
                              "--output",
                              "m.svg",
                              "--disable-rewrite",
                              "add-norm",
                              "--disable-rewrite",
                              "rope-folding",
                              "--context",
                              "128"});
  ASSERT_TRUE(options);
  EXPECT_TRUE(options->convert.svg);
  EXPECT_EQ(options->convert.output, "m.svg");
  EXPECT_EQ(options->convert.rewrites.disabled,
            (std::vector<std::string>{"add-norm", "rope-folding"}));
  EXPECT_EQ(options->convert.rewrites.workload.context_len, 128);
  EXPECT_FALSE(parse({"convert", "m", "--svg", "--json"}));
  const auto serve = parse({"serve", "m", "--disable-rewrite", "residual-sums"});
  ASSERT_TRUE(serve);
  EXPECT_EQ(serve->serve.model.disable_rewrite, (std::vector<std::string>{"residual-sums"}));
}

TEST(CommandLine, ReadsTheBenchmarkOfTransports) {
  const auto options = parse({"bench",
                              "transport",
                              "--backends",
                              "shm,tcp",
                              "--sizes",
                              "8,16KiB",
                              "--seconds",
                              "0.05",
                              "--json"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Command::kBenchTransport);
  EXPECT_EQ(options->bench_transport.backends, (std::vector<std::string>{"shm", "tcp"}));
  EXPECT_EQ(options->bench_transport.sizes, (std::vector<uint32_t>{8, 16384}));
  EXPECT_EQ(options->bench_transport.seconds, 0.05);
  EXPECT_TRUE(options->bench_transport.json);
  EXPECT_FALSE(options->bench_transport.parts);
  EXPECT_EQ(options->log_level, "warning");
}

TEST(CommandLine, RefusesWrongBenchmarksOfTransports) {
  EXPECT_FALSE(parse({"bench"}));
  EXPECT_FALSE(parse({"bench", "dance"}));
  EXPECT_FALSE(parse({"bench", "transport", "--backends", "shm,carrier-pigeon"}));
  EXPECT_FALSE(parse({"bench", "transport", "--seconds", "0"}));
  EXPECT_FALSE(parse({"bench", "transport", "--sizes", "0"}));
  EXPECT_FALSE(parse({"bench", "transport", "--sizes", "8,1GiB"}));
  EXPECT_THROW(parse({"bench", "transport", "--sizes", "big"}), Error);
}

TEST(CommandLine, RefusesWrongFlags) {
  EXPECT_THROW(parse({"serve"}), Error);
  EXPECT_FALSE(parse({"serve", "m", "--dtype", "int3"}));
  EXPECT_FALSE(parse({"dance"}));
  EXPECT_THROW(parse({"serve", "m", "--kv-cache-memory-bytes", "lots"}), Error);
}

TEST(ParseSize, KnowsItsUnits) {
  EXPECT_EQ(parse_size("1000"), 1000U);
  EXPECT_EQ(parse_size("4k"), 4000U);
  EXPECT_EQ(parse_size("4K"), 4096U);
  EXPECT_EQ(parse_size("1.5GiB"), 1610612736U);
  for (const char* bad : {"", "x", "-1", "1Q", "1e30", "nan"})
    EXPECT_THROW(parse_size(bad), Error) << bad;
}

}  // namespace
}  // namespace lamina::app
