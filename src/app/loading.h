// Loading a model for a program: files, tokenizer, chat template and the ModelProgram, with a
// progress bar on a terminal.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/cpus.h"
#include "app/options.h"
#include "device/gpu_stream.h"
#include "engine/model_program.h"
#include "model/model_files.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace lamina::app {

struct LoadedModel {
  std::unique_ptr<ModelFiles> files;
  std::unique_ptr<Tokenizer> tokenizer;       // null with --skip-tokenizer-init
  std::optional<ChatTemplate> chat_template;  // the given one, else the model's own
  std::string bos_token;                      // as the template wants them
  std::string eos_token;
  std::vector<std::unique_ptr<GpuStream>> gpus;  // of each rank of each replica; or none
  ModelProgram program;
  bool has_auto_micro_batches = false;  // the program's rotation has room for as many as may serve
};

// Throws Error, one line. `chat_template`: a file, the text itself, or empty. A rank's weights come
// from memory of the nodes that its pools run on.
LoadedModel load_model(const ModelOptions& options,
                       const std::string& chat_template,
                       const ProcessCpus& cpus);

}  // namespace lamina::app
