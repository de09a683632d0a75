// What a decoder keeps between its operations, and how it is laid out. For model/decoder.cc.
#pragma once

#include <vector>

#include "model/decoder.h"

namespace edge {

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

void merge(ActNeeds& into, ActNeeds from);
// What the feed-forward network or the experts of a layer read of the normed residual.
ActNeeds ffn_in_needs(const LayerWeights& w);

// Activation memory of one step, allocated once for kMaxRows rows.
struct Decoder::Scratch {
  int64_t x_stride = 0;
  float* x = nullptr;      // [kMaxRows][x_stride] residual stream
  float* q = nullptr;      // [kMaxRows][widest queries, or B, C and x], until the mixer is done
  float* delta = nullptr;  // [kMaxRows][x_stride] what the next norm adds to x; the memory of q
  ActRows model_act;       // normed residual: input of q, k, v, conv_in, gate, up, output
  ActRows heads_act;       // what the mixer gives: input of o, conv_out
  ActRows ffn_act;         // input of down
  AdapterRows adapters;    // of the step
  MoeRoutes routes;        // n_routed left out: it is a layer's
  MoeBuffers experts;
  std::vector<uint64_t*> n_routed;  // by layer, [n_experts]; null without experts
  RopeTable rope, local_rope, no_rope;
  // Of rows on their way to where they are wanted: a part of the vocabulary, and hidden states.
  int64_t logits_stride = 0;
  float* logits = nullptr;  // [kHeadRows][logits_stride], null without a head
  float* all_logits =
      nullptr;                // [kHeadRows][n_vocab rounded up to 16], where the backend has top()
  TopTokens* tops = nullptr;  // [kHeadRows]
  float* hidden = nullptr;    // [kHeadRows][d_model padded]

  static constexpr int kHeadRows = 16;
  static constexpr int64_t kHeadCols = 16384;  // at a time: 1 MiB, which stays in a cache
};

}  // namespace edge
