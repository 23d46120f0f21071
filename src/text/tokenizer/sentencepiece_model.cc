#include "text/tokenizer/sentencepiece_model.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer/json_file.h"
#include "text/tokenizer/scored_vocabulary.h"
#include "tokenizer/sentencepiece_model.pb.h"

namespace lamina {
namespace {

using File = proto::SentencePieceFile;

constexpr size_t kMaxModelBytes = size_t{64} << 20;

[[noreturn]] void fail(const std::string& message) {
  throw Error(StatusCode::kInvalidArgument, message);
}

void check_training(const File::Training& training) {
  constexpr int32_t kBpe = 2;
  const int32_t kind = training.model_kind();
  if (kind != kBpe) {
    const std::string name = kind == 1   ? "unigram"
                             : kind == 3 ? "word"
                             : kind == 4 ? "char"
                                         : std::to_string(kind);
    fail(fmt::format("tokenizer model '{}' is not supported", name));
  }
  if (training.space_as_suffix()) fail("treat_whitespace_as_suffix is not supported");
}

void check_normalization(const File::Normalization& normalization) {
  if (!normalization.compiled_rules().empty()) {
    fail(fmt::format("normalizer {} is not supported", in_quotes(normalization.name())));
  }
  if (normalization.remove_extra_spaces()) fail("remove_extra_whitespaces is not supported");
  if (!normalization.escape_spaces()) fail("escape_whitespaces = false is not supported");
}

std::optional<int32_t> optional_id(int32_t id) {
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace

std::unique_ptr<Tokenizer> parse_sentencepiece_model(std::string_view bytes,
                                                     std::string_view config) {
  if (bytes.size() > kMaxModelBytes) fail(fmt::format("more than {} bytes", kMaxModelBytes));
  File file;
  if (!file.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    fail("not a SentencePiece model");
  }
  if (file.pieces().empty()) fail("a SentencePiece model without pieces");
  check_training(file.training());
  check_normalization(file.normalization());
  ScoredVocabulary source;
  for (const File::Piece& piece : file.pieces()) {
    source.texts.push_back(piece.text());
    source.scores.push_back(piece.score());
    source.kinds.push_back(to_piece_kind(piece.kind()));
    if (source.kinds.back() == PieceKind::kUnused) fail("unused pieces are not supported");
  }
  const nlohmann::json settings = config.empty() ? nlohmann::json::object() : parse_json(config);
  source.unknown_id = optional_id(file.training().unknown_id());
  source.bos_id = optional_id(file.training().bos_id());
  source.eos_id = optional_id(file.training().eos_id());
  source.add_bos = json_bool(settings, "add_bos_token", true);
  source.add_eos = json_bool(settings, "add_eos_token", false);
  source.add_space_prefix = file.normalization().add_dummy_prefix();
  source.byte_fallback = file.training().byte_fallback();
  source.user_defined_normalized = true;
  return make_scored_tokenizer(source);
}

}  // namespace lamina
