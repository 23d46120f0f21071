// A stand-in for NCCL's library, for tests on CPUs: communicators of two ranks within one process,
// whose calls are in progress, as those of NCCL's non-blocking ones, until what they receive is
// there. Sending never waits.
#pragma once

#include "device/nccl/library.h"

namespace lamina::nccl::testing {

// As if all communicators of the process were of its machine.
const Library& fake_library();
// The same, of another version.
const Library& newer_fake_library();

// Communicators that were made and not yet aborted.
int num_fake_communicators();
// From now on all of them say that their network has failed; or no longer.
void break_fake_network(bool is_broken);

}  // namespace lamina::nccl::testing
