// What a card, its host and the link between them are measured to give: the ceilings of the bounds
// that benchmarks print.
#pragma once

#include "device/stream.h"
#include "device/thread_pool.h"
#include "plan/decode_bounds.h"

namespace lamina::bench {

// Operations a second of bf16 products of so many rows: the best of several sizes of weights.
double measure_products(StreamView stream, int64_t num_rows);

// What the card reads at best (card_reads.h), and products of many rows.
DeviceRates measure_card(StreamView stream);

// Bytes a second that all threads of a pool read together, far more than caches hold.
double measure_host_reads(ThreadPool& pool);

// Bytes a second of copies between a card and pinned memory.
struct LinkRates {
  double to_host = 0.0;
  double to_card = 0.0;
};
LinkRates measure_link(StreamView stream);

}  // namespace lamina::bench
