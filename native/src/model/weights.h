// Weights: the tensors of a model looked up once by name and checked against the spec's allow-list
// of (role, format, shape). Views into the mapped file; the EdgeFile must outlive them.
#pragma once

#include <vector>

#include "base/status.h"
#include "format/edge_file.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edge {

// Tensors that the spec does not ask for are empty (data is null).
struct NormWeights {
  Tensor weight;  // F32
  Tensor bias;    // F32, of LayerNorm only
};

struct LayerWeights {
  NormWeights attn_norm;       // [d_model]
  Tensor attn_q;               // [n_heads * head_dim, d_model]
  Tensor attn_k;               // [n_kv_heads * head_dim, d_model]
  Tensor attn_v;               // [n_kv_heads * head_dim, d_model]
  Tensor attn_q_bias;          // F32, as long as the matrix has rows; so are all biases
  Tensor attn_k_bias;          //
  Tensor attn_v_bias;          //
  Tensor attn_q_norm;          // F32 [head_dim] or [n_heads * head_dim]
  Tensor attn_k_norm;          // F32 [head_dim] or [n_kv_heads * head_dim]
  Tensor attn_k_mean;          // F32 [n_kv_heads * head_dim], with balance_keys
  Tensor attn_k_scale;         //
  Tensor attn_o;               // [d_model, n_heads * head_dim]
  Tensor attn_o_bias;          //
  Tensor conv_in;              // [3 * d_model, d_model]: B, C and x; of a short convolution
  Tensor conv_taps;            // F32 [conv_kernel * d_model], tap by tap, that of the oldest first
  Tensor conv_out;             // [d_model, d_model]
  NormWeights attn_post_norm;  // [d_model]
  NormWeights ffn_norm;        // [d_model]
  Tensor ffn_gate;             // [d_ffn, d_model]
  Tensor ffn_up;               // [d_ffn, d_model]
  Tensor ffn_down;             // [d_model, d_ffn]
  Tensor ffn_gate_bias;        //
  Tensor ffn_up_bias;          //
  Tensor ffn_down_bias;        //
  Tensor ffn_router;          // F16 [n_experts, d_model]; with experts, instead of ffn_gate to bias
  Tensor ffn_gate_exps;       // [n_experts * stacked(d_expert), d_model]
  Tensor ffn_up_exps;         // [n_experts * stacked(d_expert), d_model]
  Tensor ffn_down_exps;       // [n_experts * stacked(d_model), d_expert]
  Tensor ffn_gate_shexp;      // [d_shared, d_model], with a shared expert
  Tensor ffn_up_shexp;        // [d_shared, d_model]
  Tensor ffn_down_shexp;      // [d_model, d_shared]
  Tensor ffn_gate_inp_shexp;  // F16 [1, d_model], with a gate of the shared expert
  NormWeights ffn_post_norm;  // [d_model]
};

struct Weights {
  Tensor token_embd;           // [n_vocab, d_model]
  Tensor position_embd;        // [n_positions, d_model]
  Tensor rope_inv_freq;        // F32 [n_rope / 2], as the other two
  Tensor rope_inv_freq_local;  // of layers with a table of their own
  Tensor rope_inv_freq_long;   // instead of rope_inv_freq for long contexts
  NormWeights output_norm;     // [d_model]
  Tensor output;               // [n_vocab, d_model]; token_embd again when the head is tied
  std::vector<LayerWeights> layers;

  // Of a draft head only: what stands between the embedding and its layer.
  NormWeights embed_norm;   // [d_model]
  Tensor fuse_embed;        // [d_model, d_model]
  NormWeights hidden_norm;  // [d_model]
  Tensor fuse_hidden;       // [d_model, d_model]

  // Every tensor the spec asks for must be there with its role, an allowed format and its shape
  // (kTensorMissing, kTensorRole, kTensorFormat, kTensorShape), and no other model tensor may be
  // (kTensorUnexpected).
  static Result<Weights> bind(const EdgeFile& file, const ModelSpec& spec);
  // Of a draft head's file, by the same rules, with the embedding and the rotary tables of the
  // model that it drafts for.
  static Result<Weights> bind_head(const EdgeFile& file, const ModelSpec& spec,
                                   const Weights& model);
};

}  // namespace edge
