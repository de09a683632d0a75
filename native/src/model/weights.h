// Weights: the tensors of a model looked up once by name and checked against the spec's allow-list
// of (role, format, shape). Views into the mapped file; the EdgeFile must outlive them.
#pragma once

#include <vector>

#include "base/status.h"
#include "format/edge_file.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edge {

struct LayerWeights {
  Tensor attn_norm;           // F32 [d_model]
  Tensor attn_q;              // [n_heads * head_dim, d_model]
  Tensor attn_k;              // [n_kv_heads * head_dim, d_model]
  Tensor attn_v;              // [n_kv_heads * head_dim, d_model]
  Tensor attn_o;              // [d_model, n_heads * head_dim]
  Tensor ffn_norm;            // F32 [d_model]
  Tensor ffn_gate;            // [d_ffn, d_model], without experts
  Tensor ffn_up;              // [d_ffn, d_model]
  Tensor ffn_down;            // [d_model, d_ffn]
  Tensor ffn_router;          // F16 [n_experts, d_model]
  Tensor ffn_gate_exps;       // [n_experts * stacked(d_expert), d_model]
  Tensor ffn_up_exps;         // [n_experts * stacked(d_expert), d_model]
  Tensor ffn_down_exps;       // [n_experts * stacked(d_model), d_expert]
  Tensor ffn_gate_shexp;      // [d_shared, d_model], with a shared expert
  Tensor ffn_up_shexp;        // [d_shared, d_model]
  Tensor ffn_down_shexp;      // [d_model, d_shared]
  Tensor ffn_gate_inp_shexp;  // F16 [1, d_model], with a gate of the shared expert
};

struct Weights {
  Tensor token_embd;     // [n_vocab, d_model]
  Tensor rope_inv_freq;  // F32 [n_rope / 2]
  Tensor output_norm;    // F32 [d_model]
  Tensor output;         // [n_vocab, d_model]; token_embd again when the head is tied
  std::vector<LayerWeights> layers;

  // Every tensor the spec asks for must be there with its role, an allowed format and its shape
  // (kTensorMissing, kTensorRole, kTensorFormat, kTensorShape), and no other model tensor may be
  // (kTensorUnexpected).
  static Result<Weights> bind(const EdgeFile& file, const ModelSpec& spec);
};

}  // namespace edge
