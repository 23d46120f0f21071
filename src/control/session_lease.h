// SessionLease: a worker's side of the epoch rules: which engine may open a session, and until when
// it keeps it without a heartbeat. Used by the server, which calls the handler around it. Time
// comes from the Clock given. Internally locked.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace lamina::control {

class SessionLease {
 public:
  // `clock` outlives this.
  explicit SessionLease(const Clock& clock) : clock_(clock) {}

  struct Holder {
    uint64_t engine_id = 0;
    std::string engine_name;
    uint64_t epoch = 0;
  };

  // May this engine open session holder.epoch now? On ok the epoch counts as used, whether or not a
  // session comes of it. kAborted: not greater than the engine's last one; kAlreadyExists: another
  // engine's lease is live.
  Status admit(const Holder& holder);
  // The session is open; its lease starts now. CHECKs that none is held.
  void start(const Holder& holder, Duration lease);
  // A heartbeat. kFailedPrecondition: no session, or the lease ran out, even if nobody noticed yet;
  // kAborted: `epoch` is not that of the live session.
  Status renew(uint64_t epoch);
  // As renew(), but renews nothing.
  [[nodiscard]] Status check(uint64_t epoch) const;
  // Forgets the session, live or expired, and returns its epoch, if there is one.
  std::optional<uint64_t> clear();

  // Of the session whose lease has not run out; 0 without one.
  [[nodiscard]] uint64_t live_epoch() const;
  // A session is held whose lease ran out: time to clear() it.
  [[nodiscard]] bool has_expired() const;

 private:
  // The last epoch of an engine. Engines are forgotten oldest first past kMaxEngines: an engine's
  // id is new at each of its starts, so an old one does not come back.
  struct Seen {
    uint64_t engine_id = 0;
    uint64_t epoch = 0;
  };
  static constexpr size_t kMaxEngines = 256;

  struct Held {
    Holder holder;
    Duration lease;
    TimePoint expires;
  };

  [[nodiscard]] bool live_locked() const { return held_ && clock_.now() < held_->expires; }
  [[nodiscard]] Status check_locked(uint64_t epoch) const;
  Status note_epoch_locked(const Holder& holder);

  const Clock& clock_;
  mutable std::mutex mutex_;
  std::optional<Held> held_;
  std::deque<Seen> seen_;
};

}  // namespace lamina::control
