#include "server/http_message.h"

namespace lamina::server {

HttpReply to_reply(const ApiError& error) {
  HttpReply reply;
  reply.status = error.http_status();
  reply.body = error.body();
  if (reply.status == 503) reply.headers.emplace_back("Retry-After", kRetryAfterSeconds);
  if (reply.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

}  // namespace lamina::server
