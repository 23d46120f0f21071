#include "server/test_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace lamina::server {

TestClient::TestClient(uint16_t port, int receive_buffer_bytes)
    : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const timeval patience{10, 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (receive_buffer_bytes > 0) {
    setsockopt(
        socket_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw Error(StatusCode::kUnavailable, fmt::format("cannot connect to port {}", port));
  }
}

void TestClient::send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return;  // The server may close before it has read everything.
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void TestClient::shut_sending() const {
  ::shutdown(socket_.get(), SHUT_WR);
}

bool TestClient::read_more() {
  char bytes[16 * 1024];
  const ssize_t count = ::recv(socket_.get(), bytes, sizeof(bytes), 0);
  if (count <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(count));
  return true;
}

std::string TestClient::read_until(std::string_view end) {
  size_t position = std::string::npos;
  while ((position = buffer_.find(end)) == std::string::npos) {
    if (!read_more()) return std::exchange(buffer_, {});
  }
  std::string text = buffer_.substr(0, position + end.size());
  buffer_.erase(0, position + end.size());
  return text;
}

std::string TestClient::read_exactly(size_t count) {
  while (buffer_.size() < count && read_more()) {
  }
  std::string text = buffer_.substr(0, count);
  buffer_.erase(0, text.size());
  return text;
}

std::optional<TestReply> TestClient::read_head() {
  const std::string head = read_until("\r\n\r\n");
  if (head.size() < 12 || head.compare(0, 5, "HTTP/") != 0) return std::nullopt;
  TestReply reply;
  reply.status = std::stoi(head.substr(9, 3));
  size_t line = head.find("\r\n") + 2;
  while (line + 2 < head.size()) {
    const size_t end = head.find("\r\n", line);
    const size_t colon = head.find(": ", line);
    std::string name = head.substr(line, colon - line);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
      return static_cast<char>(std::tolower(c));
    });
    reply.headers[name] = head.substr(colon + 2, end - colon - 2);
    line = end + 2;
  }
  return reply;
}

std::optional<TestReply> TestClient::read_reply(bool has_body) {
  std::optional<TestReply> reply = read_head();
  if (!reply || !has_body) return reply;
  if (reply->headers.contains("content-length")) {
    reply->body = read_exactly(std::stoul(reply->headers["content-length"]));
  } else if (reply->headers.contains("transfer-encoding")) {
    while (true) {
      const std::string size = read_until("\r\n");
      const size_t count = size.empty() ? 0 : std::stoul(size, nullptr, 16);
      reply->body += read_exactly(count);
      if (read_exactly(2) != "\r\n" || count == 0) break;
    }
  } else if (reply->status != 204) {
    while (read_more()) {
    }
    reply->body = std::exchange(buffer_, {});
  }
  return reply;
}

bool TestClient::wait_for_close() {
  while (true) {
    char bytes[64 * 1024];
    const ssize_t count = ::recv(socket_.get(), bytes, sizeof(bytes), 0);
    if (count > 0) continue;
    return count == 0 || errno == ECONNRESET;
  }
}

std::string make_request(std::string_view method,
                         std::string_view path,
                         std::string_view body,
                         std::string_view headers) {
  const std::string entity =
      body.empty()
          ? ""
          : fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  return fmt::format(
      "{} {} HTTP/1.1\r\nHost: localhost\r\n{}{}\r\n{}", method, path, headers, entity, body);
}

TestReply call(uint16_t port,
               std::string_view method,
               std::string_view path,
               std::string_view body,
               std::string_view headers) {
  TestClient client(port);
  client.send(make_request(method, path, body, headers));
  return client.read_reply(method != "HEAD").value_or(TestReply());
}

}  // namespace lamina::server
