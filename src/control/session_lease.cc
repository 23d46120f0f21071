#include "control/session_lease.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace lamina::control {

Status SessionLease::admit(const Holder& holder) {
  const std::lock_guard lock(mutex_);
  if (live_locked() && held_->holder.engine_id != holder.engine_id) {
    return {StatusCode::kAlreadyExists,
            fmt::format("this worker serves engine '{}' (session {}); its lease has to end first",
                        held_->holder.engine_name,
                        held_->holder.epoch)};
  }
  return note_epoch_locked(holder);
}

Status SessionLease::note_epoch_locked(const Holder& holder) {
  const auto seen = std::ranges::find(seen_, holder.engine_id, &Seen::engine_id);
  if (seen == seen_.end()) {
    if (seen_.size() == kMaxEngines) seen_.pop_front();
    seen_.push_back({.engine_id = holder.engine_id, .epoch = holder.epoch});
    return {};
  }
  if (holder.epoch <= seen->epoch) {
    return {StatusCode::kAborted,
            fmt::format("session {} of engine '{}' is stale: session {} came before it",
                        holder.epoch,
                        holder.engine_name,
                        seen->epoch)};
  }
  seen->epoch = holder.epoch;
  return {};
}

void SessionLease::start(const Holder& holder, Duration lease) {
  const std::lock_guard lock(mutex_);
  LAMINA_CHECK(!held_, "a session starts while one is held");
  held_ = Held{.holder = holder, .lease = lease, .expires = clock_.now() + lease};
}

Status SessionLease::renew(uint64_t epoch) {
  const std::lock_guard lock(mutex_);
  LAMINA_RETURN_IF_ERROR(check_locked(epoch));
  held_->expires = clock_.now() + held_->lease;
  return {};
}

Status SessionLease::check(uint64_t epoch) const {
  const std::lock_guard lock(mutex_);
  return check_locked(epoch);
}

Status SessionLease::check_locked(uint64_t epoch) const {
  if (!live_locked()) {
    return failed_precondition(fmt::format(
        "session {} is not open at this worker: it restarted, or the lease ran out", epoch));
  }
  if (held_->holder.epoch != epoch) {
    return {StatusCode::kAborted,
            fmt::format("session {} is not open at this worker: it serves session {}",
                        epoch,
                        held_->holder.epoch)};
  }
  return {};
}

std::optional<uint64_t> SessionLease::clear() {
  const std::lock_guard lock(mutex_);
  if (!held_) return std::nullopt;
  const uint64_t epoch = held_->holder.epoch;
  held_.reset();
  return epoch;
}

uint64_t SessionLease::live_epoch() const {
  const std::lock_guard lock(mutex_);
  return live_locked() ? held_->holder.epoch : 0;
}

bool SessionLease::has_expired() const {
  const std::lock_guard lock(mutex_);
  return held_ && !live_locked();
}

}  // namespace lamina::control
