// How the asking side of a link has the other do its part: a command, a plain struct, for which
// both make ready before either sends; then both do it. An End is one side, of a device:
//   Status begin(const Command&)  makes ready: nothing of an earlier command is left
//   Status run(const Command&)    does its part, and waits for it
#pragma once

#include <array>
#include <string>

#include "base/error.h"
#include "transport/measure/peer.h"

namespace lamina::measure {

// What the other side says of its part.
struct Answer {
  StatusCode code = StatusCode::kOk;
  std::array<char, 252> text{};

  static Answer of(const Status& status) {
    Answer answer = {.code = status.code()};
    status.message().copy(answer.text.data(), answer.text.size() - 1);
    return answer;
  }
  [[nodiscard]] Status status() const {
    if (code == StatusCode::kOk) return {};
    return {code, "the other process: " + std::string(text.data())};
  }
};

// Within the time of the other side's last wait, and a little.
inline Status receive_answer(int socket) {
  constexpr Duration kSlack = std::chrono::seconds(2);
  return receive_struct<Answer>(socket, Deadline::after(kMaxWait + kSlack)).status();
}

// Makes both sides ready: until this returns, neither may send.
template <typename End, typename Command>
Status begin(End& end, int socket, const Command& command) try {
  LAMINA_RETURN_IF_ERROR(end.begin(command));
  send_struct(socket, command);
  return receive_answer(socket);
} catch (const Error& error) {
  return error.status();
}

// Both sides' parts. The other's is waited for also if ours has failed, so that its answer is not
// taken for that of a later command.
template <typename End, typename Command>
Status ask(End& end, int socket, const Command& command) {
  LAMINA_RETURN_IF_ERROR(begin(end, socket, command));
  const Status ours = end.run(command);
  try {
    const Status theirs = receive_answer(socket);
    return ours.ok() ? theirs : ours;
  } catch (const Error& error) {
    return ours.ok() ? error.status() : ours;
  }
}

// The answering side: its parts of commands, until the asking side is gone. Throws Error
// kUnavailable then, kDeadlineExceeded if there is none for a long time.
template <typename Command, typename End>
[[noreturn]] void obey(End& end, int socket) {
  while (true) {
    const auto command = receive_struct<Command>(socket, Deadline::after(kSetUpTime));
    Status status = end.begin(command);
    send_struct(socket, Answer::of(status));
    if (!status.ok()) continue;
    status = end.run(command);
    send_struct(socket, Answer::of(status));
  }
}

}  // namespace lamina::measure
