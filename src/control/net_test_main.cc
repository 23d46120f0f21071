// main of the control plane's network tests: runs them, or is the worker process that they start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "control/worker_process.h"

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--control-worker") {
    return lamina::control::worker_process_main(
        static_cast<uint16_t>(std::strtoul(argv[2], nullptr, 10)));
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
