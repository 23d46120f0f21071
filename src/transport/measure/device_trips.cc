#include "transport/measure/device_trips.h"

#include "base/check.h"
#include "device/cuda/memory.h"
#include "transport/measure/commands.h"
#include "transport/measure/cpu_end.h"
#include "transport/measure/gpu_end.h"
#include "transport/measure/trip_times.h"

namespace lamina::measure {
namespace {

cuda_p2p::Place place_between(Device a, Device b) {
  const bool are_gpus = a.kind == DeviceKind::kCuda && b.kind == DeviceKind::kCuda;
  return are_gpus ? cuda_p2p::Place::kGpuMemory : cuda_p2p::Place::kHostMemory;
}

// Of round trips of the first batch; of replays, which are many each, one.
uint64_t first_count(Drive drive) {
  return drive == Drive::kGraph ? 1 : 10;
}

}  // namespace

DeviceTrips::DeviceTrips(const Config& config)
    : peer_(std::string(kPeerArgument)),
      end_([&] {
        const auto place = place_between(config.ours, config.peers);
        send_struct(peer_.socket(),
                    PeerRole{.is_device = true,
                             .max_bytes = config.max_bytes,
                             .device = config.peers,
                             .place = place});
        return make_device_end({.device = config.ours,
                                .place = place,
                                .asks = true,
                                .max_bytes = config.max_bytes,
                                .max_wait = kMaxWait},
                               peer_.socket());
      }()),
      watch_({.sockets = {peer_.socket()}, .on_leave = [this] { end_->guard().abort(); }}),
      max_bytes_(config.max_bytes) {}

Result<std::vector<double>> DeviceTrips::times_us(const TripKind& kind,
                                                  uint32_t size_bytes,
                                                  Duration time) {
  LAMINA_CHECK(size_bytes > 0 && size_bytes <= max_bytes_ && kind.can_carry(size_bytes));
  return measure_for(
      time, first_count(kind.drive), [&](uint64_t count) -> Result<std::vector<double>> {
        LAMINA_RETURN_IF_ERROR(
            ask(*end_,
                peer_.socket(),
                DeviceCommand{
                    .kind = kind, .size_bytes = size_bytes, .epoch = ++epoch_, .count = count}));
        return end_->times_us();
      });
}

std::unique_ptr<DeviceEnd> make_device_end(const DeviceEndConfig& config, int socket) {
  const Deadline deadline = Deadline::after(kSetUpTime);
  if (config.device.kind == DeviceKind::kCpu) {
    return std::make_unique<CpuEnd>(config, socket, deadline);
  }
  cuda::use_device(config.device);
  return std::make_unique<GpuEnd>(config, socket, deadline);
}

void answer_as_device(const PeerRole& role) {
  const auto end = make_device_end({.device = role.device,
                                    .place = role.place,
                                    .asks = false,
                                    .max_bytes = role.max_bytes,
                                    .max_wait = kMaxWait},
                                   kPeerSocket);
  obey<DeviceCommand>(*end, kPeerSocket);
}

}  // namespace lamina::measure
