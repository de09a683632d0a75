// Names of what graphs take and give, as edgellm/npu/host.py has them, and their shapes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/npu/bundle.h"

namespace edge::npu {

enum class NameKind : uint8_t {
  kIds,
  kPositions,
  kX,  // rows of the embedding, or what another part gave
  kMask,
  kCos,
  kSin,
  kPastK,
  kPastV,
  kNewK,
  kNewV,
  kLogits,
  kHidden,
};

enum class ElementType : uint8_t { kFloat, kHalf, kInt32 };

// `number`: of a layer, or of a mask's window; `rope`: of kCos and kSin.
struct GraphName {
  NameKind kind = NameKind::kIds;
  int number = 0;
  std::string rope = {};
};

// kTensorUnexpected for one that this model does not have.
Result<GraphName> parse_name(std::string_view name, const Bundle& bundle);

std::vector<int64_t> shape_of(const GraphName& name, const GraphPart& part, const Bundle& bundle);
ElementType type_of(const GraphName& name, const Bundle& bundle);

// That a graph takes and gives what it may, nothing twice, and gives the new rows of just the
// layers whose past it takes.
Status check_names(const GraphPart& part, const Bundle& bundle);

inline bool has_name(std::span<const std::string> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace edge::npu
