// The bandwidth of a card's memory.
#pragma once

namespace lamina::bench {

// Bytes a second that the current device reads: the best of several ways, cold. Takes 4 GiB of its
// memory meanwhile.
double measure_card_reads();

}  // namespace lamina::bench
