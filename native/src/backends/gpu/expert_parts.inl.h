// Which rows a part of an expert's pairs are, and where the expert's weights stand. Included after
// a dialect.
#pragma once

#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

// The activation row and the row of y of a pair.
struct PairRows {
  int in;
  int out;
};
EDGE_FN PairRows rows_of_pair(EDGE_ARGS ExpertsArgs& args, int pair, int half) {
  return {args.halves * (args.row0 + pair / args.per_row) + half, args.halves * pair + half};
}
EDGE_FN PairRows rows_of_part(EDGE_ARGS ExpertsArgs& args, EDGE_GLOBAL const ExpertPart& part,
                              int number) {
  return rows_of_pair(args, args.order[part.first + number / args.halves], number % args.halves);
}

EDGE_FN EDGE_GLOBAL const uint8_t* strip_of_expert(EDGE_ARGS ExpertsArgs& args, int expert,
                                                   int64_t strip) {
  return strip_of(args.w, strip) + args.expert_bytes * expert;
}

}  // namespace EDGE_DEVICE
