// main of the transport's network tests: runs them, or is the peer that measurements start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transport/measure/peer.h"

int main(int argc, char** argv) {
  if (argc == 2 && argv[1] == lamina::measure::kPeerArgument) return lamina::measure::run_peer();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
