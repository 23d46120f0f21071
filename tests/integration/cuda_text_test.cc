// Text of trained models through all of the program but its server: loading, placement, engine.
// Greedy, in f32, wherever model and attention are: on the CPU, on a GPU, or on both. Tiny models
// of the shared folder are held to their reference; the model that LAMINA_TEXT_MODEL names, a
// folder or GGUF file, to its own text colocated on the CPU: quantised weights are decoded to f32
// on both. Without a GPU only attention workers on the CPU are tried.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>

#include <nlohmann/json.hpp>

#include "app/attention_service.h"
#include "app/placement.h"
#include "control/address.h"
#include "control/attention_control_server.h"
#include "device/cuda/memory.h"
#include "device/gpu_stream.h"
#include "support/paths.h"

namespace lamina {
namespace {

constexpr std::chrono::seconds kTimeout{120};

struct Place {
  std::string name;
  std::string device;  // of the model worker
  std::string mode;
  std::vector<std::string> workers;  // devices of attention workers; empty: those of the program
  std::string transport = "auto";
  std::string partition = "auto";
  int32_t replicas = 1;  // with more, as many GPUs and a micro-batch more than those

  friend void PrintTo(const Place& place, std::ostream* out) { *out << place.name; }
};

const Place kOracle = {"CpuColocated", "cpu", "colocated", {}};

// What `lamina attention-worker` is, in this process.
class Worker {
 public:
  explicit Worker(const std::string& name) : pool_(1) {
    const Device device = parse_device(name).value_or_throw();
    if (device.kind == DeviceKind::kCuda) gpu_ = std::make_unique<GpuStream>(device);
    app::AttentionServiceConfig config;
    config.kv_memory_bytes = uint64_t{512} << 20;
    service_ = std::make_unique<app::AttentionService>(
        config, gpu_ == nullptr ? StreamView(pool_) : gpu_->view());
    control::AttentionControlServerConfig control;
    control.security.cluster_secret = kSecret;
    server_ = std::make_unique<control::AttentionControlServer>(control, *service_);
  }

  [[nodiscard]] std::string address() const {
    return control::ControlAddress{.host = "127.0.0.1", .port = server_->port()}.to_string();
  }
  static constexpr const char* kSecret = "between friends";

 private:
  ThreadPool pool_;
  std::unique_ptr<GpuStream> gpu_;
  std::unique_ptr<app::AttentionService> service_;
  std::unique_ptr<control::AttentionControlServer> server_;  // calls the service
};

// A model where it is to run, with all that serves it.
class Served {
 public:
  Served(const std::string& model, const Place& place) {
    app::ModelOptions options;
    options.model = model;
    options.device = place.device;
    options.dtype = "float32";
    options.replicas = place.replicas;
    if (place.replicas > 1) options.micro_batches = place.replicas + 1;
    app::PlacementOptions placement;
    placement.mode = place.mode;
    placement.transport = place.workers.empty() ? "loopback" : place.transport;
    placement.partition = place.partition;
    for (const std::string& device : place.workers) {
      workers_.push_back(std::make_unique<Worker>(device));
      placement.attention_worker.push_back(workers_.back()->address());
      placement.security.cluster_secret = Worker::kSecret;
    }
    const app::ProcessCpus cpus = app::settle(placement.cpus);
    model_ = app::load_model(options, /*chat_template=*/"", cpus);
    placement_ = app::place(placement, cpus, model_, /*max_queued_sequences=*/16, "warning");
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
  ~Served() { placement_.engine->shutdown(Deadline::expired()); }

  // A question as the model's own template puts it.
  [[nodiscard]] std::vector<int32_t> question(const std::string& text) const {
    const nlohmann::json context = {{"messages", {{{"role", "user"}, {"content", text}}}},
                                    {"add_generation_prompt", true},
                                    {"bos_token", model_.bos_token},
                                    {"eos_token", model_.eos_token}};
    const std::string prompt = model_.chat_template->render(context.dump()).value_or_throw();
    return model_.tokenizer->encode(prompt, {.add_special_tokens = false, .parse_special = true})
        .value_or_throw();
  }

  struct Answer {
    std::vector<int32_t> ids;
    std::string text;
  };
  // All prompts at once.
  std::vector<Answer> answers(const std::vector<std::vector<int32_t>>& prompts,
                              int32_t max_tokens) {
    std::vector<Answer> answers(prompts.size());
    std::vector<std::promise<Status>> ends(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      GenerationRequest request{.id = "text", .prompt_ids = prompts[i]};
      request.sampling.temperature = 0.0F;
      request.max_tokens = max_tokens;
      placement_.engine
          ->submit(std::move(request),
                   [&answer = answers[i], &end = ends[i]](const GenerationEvent& event) {
                     take(event, answer, end);
                   })
          .value_or_throw();
    }
    for (std::promise<Status>& end : ends) {
      std::future<Status> ended = end.get_future();
      if (ended.wait_for(kTimeout) != std::future_status::ready) {
        placement_.engine->shutdown(Deadline::expired());  // nothing is called after this
        throw Error(StatusCode::kDeadlineExceeded, "an answer does not end");
      }
      throw_if_error(ended.get());
    }
    return answers;
  }

 private:
  static void take(const GenerationEvent& event, Answer& answer, std::promise<Status>& end) {
    if (const auto* failure = std::get_if<GenerationFailure>(&event)) {
      end.set_value(failure->status);
    } else if (const auto* delta = std::get_if<GenerationDelta>(&event)) {
      for (const ScoredToken& token : delta->tokens) answer.ids.push_back(token.id);
      answer.text += delta->text;
      if (delta->finish_reason) end.set_value({});
    }
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  app::LoadedModel model_;
  app::Placement placement_;
};

class CudaText : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    const auto is_missing = [](const std::string& name, int32_t count = 1) {
      const Device device = parse_device(name).value_or_throw();
      return device.kind == DeviceKind::kCuda && device.idx + count > cuda::num_devices();
    };
    bool is_any_missing = is_missing(GetParam().device, GetParam().replicas);
    for (const std::string& worker : GetParam().workers) is_any_missing |= is_missing(worker);
    if (is_any_missing) GTEST_SKIP() << "no such GPU";
  }
};

TEST_P(CudaText, OfTinyModelsIsTheReference) {
  LAMINA_SKIP_WITHOUT_SHARED("data/models/tinystories-656K");
  for (const std::string name : {"stories260K", "tinystories-656K"}) {
    const std::filesystem::path folder = test::shared_path("data/models/" + name);
    std::ifstream file(folder / "reference_greedy.json");
    const nlohmann::json cases = nlohmann::json::parse(file).at("cases");
    std::vector<std::vector<int32_t>> prompts;
    for (const nlohmann::json& one : cases) prompts.push_back(one.at("prompt_ids"));
    Served served(folder, GetParam());
    const auto answers = served.answers(prompts, /*max_tokens=*/256);
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(answers[i].ids, cases[i].at("generated_ids").get<std::vector<int32_t>>())
          << name << ", prompt " << i << ": " << answers[i].text;
    }
  }
}

TEST_P(CudaText, OfAChatModelIsThatOfTheCpu) {
  const char* model = std::getenv("LAMINA_TEXT_MODEL");
  if (model == nullptr) GTEST_SKIP() << "LAMINA_TEXT_MODEL names no model";
  constexpr int32_t kMaxTokens = 48;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<Served::Answer> expected;
  {
    Served oracle(model, kOracle);
    for (const char* question : {"What is the capital of France?",
                                 "Write a haiku about rain.",
                                 "Who wrote Hamlet?",
                                 "Describe the sea in one sentence."}) {
      prompts.push_back(oracle.question(question));
    }
    expected = oracle.answers(prompts, kMaxTokens);
  }
  Served served(model, GetParam());
  const auto answers = served.answers(prompts, kMaxTokens);
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(answers[i].ids, expected[i].ids) << expected[i].text << "\nis here\n"
                                               << answers[i].text;
    std::printf("%s\n", answers[i].text.c_str());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Places,
    CudaText,
    testing::Values(
        Place{"CpuOverWorkers", "cpu", "disaggregated", {}},
        Place{"CpuOverRemoteWorkers", "cpu", "disaggregated", {"cpu", "cpu"}},
        Place{"CpuOverGpuWorker", "cpu", "disaggregated", {"cuda:0"}},
        Place{"Colocated", "cuda:0", "colocated", {}},
        Place{"OverCpuWorkers", "cuda:0", "disaggregated", {}},
        Place{"OverGpuWorker", "cuda:0", "disaggregated", {"cuda:0"}},
        Place{"OverBoth", "cuda:0", "disaggregated", {"cuda:0", "cpu"}},
        // Devices send each other q, k, v and outputs by themselves. Two ends on one
        // GPU would wait for each other's kernels to be loaded.
        Place{"CpuByItself", "cpu", "disaggregated", {"cpu", "cpu"}, "cuda_p2p"},
        Place{"OverCpuByItself", "cuda:0", "disaggregated", {"cpu"}, "cuda_p2p"},
        Place{"CpuOverGpuByItself", "cpu", "disaggregated", {"cuda:0"}, "cuda_p2p"},
        Place{"OverGpuByItself", "cuda:0", "disaggregated", {"cuda:1"}, "cuda_p2p"},
        Place{"OverBothByThemselves", "cuda:0", "disaggregated", {"cuda:1", "cpu"}, "cuda_p2p"},
        Place{"OverCpusSharingHeads",
              "cuda:0",
              "disaggregated",
              {"cpu", "cpu"},
              "cuda_p2p",
              "sequence"},
        Place{"OverBothSharingHeads",
              "cuda:0",
              "disaggregated",
              {"cuda:1", "cpu"},
              "cuda_p2p",
              "sequence"},
        Place{"CpuReplicasByThemselves",
              "cpu",
              "disaggregated",
              {"cpu", "cpu"},
              "cuda_p2p",
              "auto",
              2},
        Place{"ReplicasOverCpus", "cuda:0", "disaggregated", {"cpu", "cpu"}, "cuda_p2p", "auto", 2},
        Place{"ReplicasOverGpu", "cuda:0", "disaggregated", {"cuda:2"}, "cuda_p2p", "auto", 2},
        Place{"ReplicasOverGpus",
              "cuda:0",
              "disaggregated",
              {"cuda:2", "cuda:3"},
              "cuda_p2p",
              "auto",
              2},
        Place{"ReplicasOverGpusSharingHeads",
              "cuda:0",
              "disaggregated",
              {"cuda:2", "cuda:3"},
              "cuda_p2p",
              "sequence",
              2},
        Place{"ThreeReplicasOverGpu", "cuda:0", "disaggregated", {"cuda:3"}, "cuda_p2p", "auto", 3},
        Place{"OverGpuByNccl", "cuda:0", "disaggregated", {"cuda:1"}, "nccl"}),
    [](const auto& place) { return place.param.name; });

}  // namespace
}  // namespace lamina
