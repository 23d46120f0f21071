// ChoiceText: turns the tokens of one choice into text deltas: incremental detokenising, stop ids,
// stop strings held back until they are certain, end reasons. Pure state, no threads; the tokenizer
// and the request outlive it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace lamina {

class ChoiceText {
 public:
  // `tokenizer` may be null (--skip-tokenizer-init): text stays empty then. `eos_ids`: the model's
  // own.
  ChoiceText(const Tokenizer* tokenizer,
             const GenerationRequest& request,
             const std::vector<int32_t>& eos_ids);

  // The next token. `is_last`: the sequence has reached its length limit.
  GenerationDelta add(const ScoredToken& token, bool is_last);

 private:
  [[nodiscard]] bool is_eos(int32_t id) const;
  [[nodiscard]] bool is_stop_id(int32_t id) const;
  void end(GenerationDelta& delta, FinishReason reason);
  bool find_stop_string(GenerationDelta& delta);
  void release_certain_text(GenerationDelta& delta);

  const GenerationRequest* request_;
  const std::vector<int32_t>* eos_ids_;
  std::optional<Detokenizer> detokenizer_;
  std::string held_;  // text that may be the beginning of a stop string
  int32_t num_tokens_ = 0;
};

}  // namespace lamina
