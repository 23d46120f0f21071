// Options to the control plane's security settings.
#pragma once

#include "app/options.h"
#include "control/security.h"

namespace lamina::app {

inline control::ControlSecurity to_control_security(const SecurityOptions& options) {
  return {.cluster_secret = options.cluster_secret,
          .tls = {.certificate = options.tls_certificate,
                  .private_key = options.tls_key,
                  .ca = options.tls_ca},
          .tls_server_name = {}};
}

}  // namespace lamina::app
