// Products of pairs of a row and an expert.
EDGE_ARGS(ExpertsArgs)

// The activation row of half `half_` of a pair.
int row_in(int pair, int half_) { return args.halves * (args.row0 + pair / args.per_row) + half_; }

uint8_t_ptr strip_of_expert(int expert, int strip) {
  return AT(strip_of(args.w, strip), args.expert_bytes * expert);
}
