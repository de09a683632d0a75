// The likeliest ids of a row of logits, for drafters that learn from them.
#pragma once

#include <cstdint>
#include <span>

namespace edge {

// Of finite logits: best first, ties to the lower id, as many as `out` has room for or there are
// logits; returns how many.
int top_ids(std::span<const float> logits, std::span<int32_t> out);

}  // namespace edge
