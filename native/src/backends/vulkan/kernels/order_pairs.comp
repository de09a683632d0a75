#version 460
// Pairs of a row and an expert by their expert, and parts of those of one (gpu/experts.inl.h).
#include "dialect.glsl"
EDGE_ARGS(OrderPairsArgs)
layout(local_size_x = kRowThreads) in;

shared int n_pairs[kMostExperts];
shared int first_pair[kMostExperts];
shared int first_part[kMostExperts];
shared int n_parts;

void main() {
  for (int expert = THREAD; expert < args.n_experts; expert += kRowThreads) {
    int n = 0;
    for (int i = 0; i < args.n_pairs; ++i) n += AT(args.ids, i).v == expert ? 1 : 0;
    n_pairs[expert] = n;
  }
  SYNC();
  if (THREAD == 0) {
    int pair = 0, part = 0;
    for (int expert = 0; expert < args.n_experts; ++expert) {
      first_pair[expert] = pair;
      first_part[expert] = part;
      pair += n_pairs[expert];
      part += (n_pairs[expert] + args.part_pairs - 1) / args.part_pairs;
    }
    n_parts = part;
  }
  SYNC();
  for (int expert = THREAD; expert < args.n_experts; expert += kRowThreads) {
    int to = first_pair[expert];
    for (int i = 0; i < args.n_pairs; ++i) {
      if (AT(args.ids, i).v == expert) AT(args.order, to++).v = i;
    }
    int part = first_part[expert];
    for (int done = 0; done < n_pairs[expert]; done += args.part_pairs, ++part) {
      AT(args.parts, part).v.expert = expert;
      AT(args.parts, part).v.first = first_pair[expert] + done;
      AT(args.parts, part).v.n = smaller(n_pairs[expert] - done, args.part_pairs);
    }
  }
  for (int i = n_parts + THREAD; i < args.n_parts; i += kRowThreads) AT(args.parts, i).v.n = 0;
}
