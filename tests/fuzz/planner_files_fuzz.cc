// Files that a planner is given: whatever the bytes are, a trace, a catalogue of devices or a
// profile is read or refused with an Error. What is read as a profile is fitted, and comes back
// from its text.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "planner/catalogue/device_catalogue.h"
#include "planner/load/trace_files.h"
#include "planner/profile/profile.h"

namespace {

using namespace lamina::planner;

template <typename Read>
void try_to(const Read& read) {
  try {
    read();
  } catch (const lamina::Error&) {  // refused: fine
  }
}

void check(const Load& load) {
  double before_s = 0;
  for (const LoadRequest& request : load.requests) {
    LAMINA_CHECK(request.arrives_s >= before_s);
    LAMINA_CHECK(request.num_prompt_tokens >= 1 && request.num_generated_tokens >= 1);
    before_s = request.arrives_s;
  }
}

void check(const Profile& profile) {
  const Profile again = Profile::parse(profile.to_yaml(), "again");
  LAMINA_CHECK_EQ(again.products.size(), profile.products.size());
  const ProfileFit fit(profile);
  LAMINA_CHECK(std::isfinite(fit.product_s(8, 1024, 1024)));
  LAMINA_CHECK(std::isfinite(fit.attention_s(8, 4096, 2, 16)));
  LAMINA_CHECK(!fit.has_round_trips() || std::isfinite(fit.round_trip_s(1024)));
  if (profile.slices.empty()) return;
  LAMINA_CHECK(std::isfinite(fit.each_slice_s(8, 3).last_s));
  LAMINA_CHECK(fit.in_turns(8).slices >= 1 && fit.side_by_side(8).attention >= 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try_to([&] { check(parse_azure_trace(text, "fuzz")); });
  try_to([&] { check(parse_mooncake_trace(text, "fuzz")); });
  try_to([&] { (void)DeviceCatalogue::parse(text, "fuzz"); });
  try_to([&] { check(Profile::parse(text, "fuzz")); });
  return 0;
}
