#include "graph/operators.h"

namespace lamina {

std::string_view op_kind_name(OpKind kind) {
  switch (kind) {
    case OpKind::kInput:
      return "input";
    case OpKind::kWeight:
      return "weight";
    case OpKind::kEmbedding:
      return "embedding";
    case OpKind::kLinear:
      return "linear";
    case OpKind::kHeadLinear:
      return "head_linear";
    case OpKind::kExperts:
      return "experts";
    case OpKind::kAttention:
      return "attention";
    case OpKind::kNorm:
      return "norm";
    case OpKind::kAddNorm:
      return "add_norm";
    case OpKind::kAdd:
      return "add";
    case OpKind::kMul:
      return "mul";
    case OpKind::kScale:
      return "scale";
    case OpKind::kSoftCap:
      return "soft_cap";
    case OpKind::kActivation:
      return "activation";
    case OpKind::kGatedActivation:
      return "gated_activation";
    case OpKind::kRopeTable:
      return "rope_table";
    case OpKind::kRope:
      return "rope";
    case OpKind::kRoute:
      return "route";
    case OpKind::kConcat:
      return "concat";
    case OpKind::kGatherRows:
      return "gather_rows";
    case OpKind::kReshape:
      return "reshape";
    case OpKind::kColumns:
      return "columns";
    case OpKind::kAllReduce:
      return "all_reduce";
    case OpKind::kAllGather:
      return "all_gather";
  }
  return "unknown";
}

}  // namespace lamina
