// Recorded loads: the Azure LLM inference traces (CSV: TIMESTAMP,ContextTokens,GeneratedTokens) and
// Mooncake's (JSONL: timestamp in ms, input_length, output_length). Files are anybody's: checked,
// with limits.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "planner/load/load.h"

namespace lamina::planner {

// By its ending, .csv or .jsonl. Throws Error: kNotFound; kResourceExhausted above 256 MiB;
// kInvalidArgument, naming file, line and value, for anything that is not such a trace.
Load read_trace(const std::filesystem::path& path);

// The same of a text.
Load parse_azure_trace(std::string_view text, const std::string& source);
Load parse_mooncake_trace(std::string_view text, const std::string& source);

}  // namespace lamina::planner
