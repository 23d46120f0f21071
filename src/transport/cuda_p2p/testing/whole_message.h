// Receiving a message as a whole within one launch: every block goes on once all of the message is
// there, as kernels of a step do that follow each other. Written over `Memory` and `Team` as
// message.h is, and over `meet`, which returns once all blocks have called it: false if it ended.
#pragma once

#include "transport/cuda_p2p/message.h"

namespace lamina::cuda_p2p::testing {

// Every block has a part, and answers with as large a part. Pushed: every block sees all release
// words, and so that all parts are there; the slot is free once every block has answered, and
// blocks need not meet. Lines are seen by their own threads alone.
template <typename Memory, typename Team, typename Meet, typename Sink>
LAMINA_MESSAGE_CODE bool receive_whole(const Team& team,
                                       const SlotView& slot,
                                       const Plan& plan,
                                       Stamp stamp,
                                       const StepView& step,
                                       const Meet& meet,
                                       const Sink& sink) {
  if (plan.form == Form::kLines) {
    return receive_message<Memory>(team, slot, plan, stamp, step, sink) &&
           (team.num_blocks == 1 || meet());
  }
  if (!wait_for_all_parts<Memory>(team, slot, plan, stamp, step)) return false;
  for (uint32_t part = team.block; part < plan.num_parts; part += team.num_blocks) {
    read_part<Memory>(team, slot, plan, part, sink);
  }
  return true;
}

}  // namespace lamina::cuda_p2p::testing
