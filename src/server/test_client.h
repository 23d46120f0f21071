// TestClient: a blocking HTTP client over a plain socket, for tests: it can send anything, stop
// halfway, and shows the bytes that came. Every read ends after ten seconds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"

namespace lamina::server {

struct TestReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer_bytes = 0);

  void send(std::string_view bytes) const;
  // Bytes up to and including `end`, as far as not read before; what came if the peer closed.
  std::string read_until(std::string_view end);
  // nullopt if the connection ended first.
  std::optional<TestReply> read_reply(bool has_body = true);
  // The reply's head; the body is read with read_until().
  std::optional<TestReply> read_head();
  // True once the server has closed the connection; drops what comes before.
  bool wait_for_close();
  void close() { socket_.reset(); }
  // Sends no more, but would read.
  void shut_sending() const;

 private:
  bool read_more();
  std::string read_exactly(size_t count);

  FileHandle socket_;
  std::string buffer_;
};

// One request on a connection of its own. `headers` are whole lines, each with its "\r\n".
TestReply call(uint16_t port,
               std::string_view method,
               std::string_view path,
               std::string_view body = {},
               std::string_view headers = {});
std::string make_request(std::string_view method,
                         std::string_view path,
                         std::string_view body = {},
                         std::string_view headers = {});

}  // namespace lamina::server
