#include "simulate/simulation.h"

#include "simulate/sim_engine.h"

namespace lamina::simulate {
namespace {

// Far above what a scenario needs.
constexpr EventLoop::Limits kLimits = {.max_steps = 1'000'000,
                                       .end = TimePoint(std::chrono::seconds(600))};

Status run(EventLoop& loop, SimEngine& engine) {
  const Status status = loop.run(engine, [&] { return engine.is_done(); });
  if (status.ok()) return engine.check_end();
  return internal_error(status.message() + "\n" + engine.to_string());
}

}  // namespace

Outcome simulate(const Scenario& scenario, Log log) {
  const FakeModel model(scenario.model);
  ThreadPool pool(1);
  SimNetwork network(scenario.seed);
  EventLoop loop(network, kLimits, std::move(log));
  const World world{
      .scenario = &scenario, .model = &model, .network = &network, .loop = &loop, .pool = &pool};
  SimEngine engine(world, network.add_host("engine"));
  Outcome outcome{.status = run(loop, engine),
                  .num_events = loop.num_steps(),
                  .num_steps = engine.num_steps(),
                  .num_tokens = engine.num_tokens(),
                  .num_sessions = engine.records().size(),
                  .num_active_changes = engine.num_changes(),
                  .stale_messages = {},
                  .end = network.now(),
                  .slices = {},
                  .attentions = {}};
  for (const Replay& replay : engine.replays()) {
    if (!replay.replayed) continue;
    outcome.stale_messages.push_back(static_cast<wire::MessageKind>(replay.replayed->kind));
  }
  if (!engine.records().empty()) {
    outcome.num_preemptions = engine.scheduler().num_preemptions();
    outcome.slices = engine.records().front().slices();
    outcome.attentions = engine.records().front().attentions();
  }
  return outcome;
}

}  // namespace lamina::simulate
