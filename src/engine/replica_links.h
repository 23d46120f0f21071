// Endpoints between threads of this process: between the engine and replicas of the model, from one
// replica to the next, and from one's device to the next one's. Plain functions.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/model_program.h"
#include "transport/endpoint.h"
#include "worker/device_attention.h"

namespace lamina {

// Both ends of one.
struct ThreadEnds {
  std::unique_ptr<Endpoint> a;
  std::unique_ptr<Endpoint> b;
};

// Throws what prepare_endpoint() and PendingEndpoint throw.
ThreadEnds connect_threads(const EndpointConfig& a, const EndpointConfig& b);

// By which devices hand carried values on: of each rank of replica 0, then of replica 1, ...;
// `streams` likewise. None of them where replicas take no turns. Throws what CarriedSlots and
// connect_threads() throw, where GPUs cannot reach each other, say.
std::vector<DeviceNeighbours> connect_devices(const ModelProgram& program,
                                              std::span<const StreamView> streams,
                                              uint64_t epoch);

}  // namespace lamina
