// What a conversion amounts to: for every distinct slice its work, its weights, what it keeps and
// what it sends; the totals; what the rewrites did and why. Printed by `lamina convert`, as text or
// as JSON. Pure functions of the converted model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "convert/converter.h"

namespace lamina {

// Work of one slice for one token, a token whose logits are wanted in the last slice.
struct SliceWork {
  int64_t num_operators = 0;      // without views
  int64_t flop = 0;               // of the products; all else is small beside them
  int64_t weight_bytes_read = 0;  // by one token: its row of an embedding, its experts alone
  int64_t weight_bytes = 0;       // of all weights that the slice uses
  int64_t sent_bytes = 0;         // q, k and v; latent values are not sent a second time
  int64_t received_bytes = 0;     // the attention's output

  friend bool operator==(const SliceWork&, const SliceWork&) = default;
};

struct CarriedFigure {
  std::string name;
  int64_t bytes = 0;  // per token
};

struct SliceFigures {
  int32_t idx = 0;    // the first of its class
  int32_t count = 1;  // slices that are the same
  std::string label;  // which they are
  SliceWork work;     // of one
  std::vector<CarriedFigure> carried_in;
  std::vector<CarriedFigure> carried_out;
};

struct ConversionReport {
  std::vector<SliceFigures> slices;  // distinct ones, by their first
  SliceWork total;                   // of all slices; a weight that several use counts once
  RewriteReport rewrites;
};

// What the memory plan (exec/) comes to, where one was made.
struct ActivationMemory {
  int32_t max_tokens = 0;
  uint64_t scratch_bytes = 0;
  uint64_t carried_bytes = 0;
};

ConversionReport report_conversion(const ConvertedModel& model);
// Of all slices; a weight that several use counts once.
SliceWork total_work(const SlicedModel& model);

// The table, the totals, rewrites and decisions, then the program of each distinct slice.
std::string report_text(const ConversionReport& report,
                        const SlicedModel& model,
                        const std::optional<ActivationMemory>& memory);
// The same as one JSON object, with a line break at its end.
std::string report_json(const ConversionReport& report,
                        const SlicedModel& model,
                        const std::optional<ActivationMemory>& memory);

}  // namespace lamina
