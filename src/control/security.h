// ControlSecurity: how the two ends of the control plane prove themselves to each other, and the
// rule for listening where others can reach. A shared secret travels with every call; mutual TLS
// checks both certificates against one CA and encrypts. Both may be set. Plain values.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lamina::control {

// PEM files, all three needed. Every certificate signed by the CA is trusted, as engine and as
// worker: give the cluster a CA of its own.
struct TlsFiles {
  std::filesystem::path certificate = {};  // of this end, with its chain
  std::filesystem::path private_key = {};  // of this end
  std::filesystem::path ca = {};           // signs the other end's certificate

  [[nodiscard]] bool empty() const {
    return certificate.empty() && private_key.empty() && ca.empty();
  }
};

struct ControlSecurity {
  std::string cluster_secret = {};  // any bytes, at most 1024; empty: none. Never logged.
  TlsFiles tls = {};                // empty: no TLS
  // Client only: the name that the worker's certificate must carry where it differs from the host
  // connected to. Empty: the host.
  std::string tls_server_name = {};
};

// Contents of TlsFiles.
struct TlsMaterial {
  std::string certificate;
  std::string private_key;
  std::string ca;
};

// Throws Error: kInvalidArgument if only some files are named or one holds no PEM block, and what
// read_text_file throws.
TlsMaterial load_tls(const TlsFiles& files);

// Throws Error kInvalidArgument where `host` is reachable from other machines and neither a secret
// nor TLS is set, or the secret is too long. Warns about a secret that would travel unencrypted
// between machines. Both ends call it: `action` is "listen on" or "connect to".
void check_security(const ControlSecurity& security,
                    const std::string& host,
                    std::string_view action);

// Time depends on the lengths only.
bool secrets_equal(std::string_view a, std::string_view b);

}  // namespace lamina::control
