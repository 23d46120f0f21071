#include "control/security.h"

#include "base/error.h"
#include "base/file.h"
#include "base/host.h"
#include "base/log.h"
#include "control/address.h"

namespace lamina::control {
namespace {

constexpr size_t kMaxSecretBytes = 1024;
constexpr size_t kMaxPemBytes = size_t{1} << 20;

std::string read_pem(const std::filesystem::path& path) {
  std::string text = read_text_file(path, kMaxPemBytes);
  if (text.find("-----BEGIN ") == std::string::npos) {
    throw Error(StatusCode::kInvalidArgument, fmt::format("{} holds no PEM block", path.string()));
  }
  return text;
}

}  // namespace

TlsMaterial load_tls(const TlsFiles& files) {
  if (files.certificate.empty() || files.private_key.empty() || files.ca.empty()) {
    throw Error(StatusCode::kInvalidArgument,
                "TLS needs all of --tls-cert, --tls-key and --tls-ca: both ends are verified");
  }
  return {.certificate = read_pem(files.certificate),
          .private_key = read_pem(files.private_key),
          .ca = read_pem(files.ca)};
}

void check_security(const ControlSecurity& security,
                    const std::string& host,
                    std::string_view action) {
  if (security.cluster_secret.size() > kMaxSecretBytes) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("the cluster secret has {} bytes, limit {}",
                            security.cluster_secret.size(),
                            kMaxSecretBytes));
  }
  if (is_loopback_host(host) || !security.tls.empty()) return;
  if (security.cluster_secret.empty()) {
    throw Error(StatusCode::kInvalidArgument,
                fmt::format("refusing to {} {}: set --cluster-secret or --tls-*", action, host));
  }
  log_warning(
      "the cluster secret travels unencrypted on connections of {}: set --tls-* unless the network "
      "is trusted",
      host);
}

bool secrets_equal(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  // volatile, so that the loop is not turned into one that stops at the first difference.
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  }
  return difference == 0;
}

}  // namespace lamina::control
