// How a step's attention is cut into groups of a kernel: which
// queries share what is read of keys and values. A query has the same bits in any of them.
#pragma once

#include <span>
#include <vector>

#include "backends/backend.h"
#include "backends/gpu/args.h"

namespace edge::gpu {

struct AttentionPlan {
  const char* kernel;
  int n_parts;    // of the queries of one kv head in a group of rows
  int most_rows;  // of a group
};
AttentionPlan plan_attention(std::span<const RowInput> rows, const AttentionShape& shape);

// Of rows [row0, row0 + n_rows): those that follow each other in one sequence and are no tree of
// drafts, up to most_rows together.
std::vector<RowGroup> group_rows(std::span<const RowInput> rows, int row0, int n_rows,
                                 int most_rows);

// The segments of positions that any row sees.
struct SeenSegments {
  int first, n;
};
SeenSegments segments_of(std::span<const RowInput> rows, int window, bool has_first);

}  // namespace edge::gpu
