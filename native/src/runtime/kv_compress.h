// Which tokens of a prompt are worth their KV, by the attention that its last tokens pay them:
// SnapKV (Li et al., "SnapKV: LLM knows what you are looking for before generation", 2024). Pure
// functions of numbers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace edge {

struct KvCompression {
  int n_keep = 0;     // slots that every kv head keeps
  int n_sink = 4;     // the first ones, always kept
  int n_window = 32;  // the last ones, always kept; their queries choose the others
  int n_pool = 7;     // odd: a slot's share is the largest of so many around it

  // kInvalidArgument saying what may be asked for n_slots.
  Status check(int n_slots) const;
};

// The slots to keep, ascending: sinks, window and, of the others, those of the largest pooled
// shares, ties to the earlier. shares: [n_slots], n_slots > n_keep; `compression` must fit.
std::vector<int32_t> choose_slots(std::span<const float> shares, const KvCompression& compression);

}  // namespace edge
