// GenerationCall: one API call at the engine: a request for each of its prompts, and the mailbox in
// which their events wait for the connection. Cancels whatever still runs when it goes. Used by a
// connection's thread; the mailbox is filled on the engine's thread. Knows no socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"

namespace lamina::server {

struct CallEvent {
  int32_t prompt_idx = 0;
  TimePoint when;  // when the engine reported it
  GenerationEvent event;
};

class GenerationCall {
 public:
  // `notify` is called on the engine's thread when the mailbox ceases to be empty and when it
  // overflows, and never after cancel() returned. It must not block. `max_backlog_bytes` bounds
  // what waits; past it events are dropped and overflowed() stays true.
  GenerationCall(Engine& engine, std::function<void()> notify, size_t max_backlog_bytes);
  ~GenerationCall();
  GenerationCall(const GenerationCall&) = delete;
  GenerationCall& operator=(const GenerationCall&) = delete;

  // Once. If a request is refused, the ones before it are cancelled.
  [[nodiscard]] Status submit(std::vector<GenerationRequest> requests);
  // Everything that has happened since the last take().
  [[nodiscard]] std::vector<CallEvent> take();
  [[nodiscard]] bool overflowed() const;
  // No event is taken in after this.
  void cancel();

 private:
  struct Mailbox;

  Engine& engine_;
  std::shared_ptr<Mailbox> mailbox_;  // shared with the sinks, which may outlive this
  std::vector<uint64_t> handles_;
};

}  // namespace lamina::server
