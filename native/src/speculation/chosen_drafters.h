// Which of the drafters that need no model are asked: all, or those that EDGELLM_DRAFTERS names,
// for tests and measurements of one alone.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "speculation/token_tree.h"

namespace edge {

// A bit for each DrafterKind. kInvalidArgument for a name that is none.
Result<uint32_t> chosen_drafters();

constexpr bool is_chosen(uint32_t chosen, DrafterKind kind) {
  return (chosen >> static_cast<uint32_t>(kind) & 1) != 0;
}

}  // namespace edge
