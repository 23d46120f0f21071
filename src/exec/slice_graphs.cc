#include "exec/slice_graphs.h"

#include <utility>

namespace lamina {

// A graph takes some 100 KiB; what does not fit here is enqueued call by call.
constexpr size_t kMaxGraphs = 8192;

Status SliceGraphs::run(const Key& key, StreamView stream, const std::function<Status()>& enqueue) {
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    // Plans are made and kernels loaded now, which a capture does not allow.
    LAMINA_RETURN_IF_ERROR(enqueue());
    if (graphs_.size() < kMaxGraphs) graphs_.emplace(key, std::nullopt);
    return {};
  }
  std::optional<GpuGraph>& graph = found->second;
  if (!graph.has_value()) {
    LAMINA_ASSIGN_OR_RETURN(GpuGraph captured, GpuGraph::capture(stream, enqueue));
    graph = std::move(captured);
  }
  return graph->launch(stream);
}

}  // namespace lamina
