// ModelSpec: a model as data. Mirrors converters/spec.py; the JSON text travels in the file as
// "edgellm.spec" and tests/test_spec_mirror.py keeps the two equal. Layers may differ (pruning).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/kv_layout.h"
#include "backends/op_kinds.h"
#include "base/status.h"

namespace edge {

// Which table turns queries and keys: "rope_inv_freq", "rope_inv_freq_local" or none.
enum class RopeUse : uint8_t { kFull, kLocal, kNone };
// Over which elements queries and keys are RMS-normed before they turn.
enum class QkNorm : uint8_t { kNone, kHead, kFull };

// How a layer mixes a token with those before it: attention, or the gated short convolution of
// LFM2, y = C * conv(B * x) with [B, C, x] = conv_in(h), each channel by itself and causal.
enum class Mixer : uint8_t { kGqa, kShortConv };

// Fields with a default may be absent in the text; a file that needs none of them does not have it.
struct LayerSpec {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int d_ffn = 0;  // 0 with experts
  RopeUse rope = RopeUse::kFull;
  int window = 0;  // > 0: position p sees positions p - window < j <= p
  bool pre_norm = true;
  bool post_norm = false;  // of what attention and ffn add to the residual stream
  bool parallel = false;   // x + attn(attn_norm(x)) + ffn(ffn_norm(x))
  bool qkv_bias = false;
  bool o_bias = false;
  bool ffn_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool rotate_keys = false;   // queries and keys are mixed (backends/cpu/hadamard.h)
  bool balance_keys = false;  // keys are centred, channels scaled (KeyBalance); no attn_softcap
  float attn_scale = 0;       // of the scores; 0: 1 / sqrt(head_dim)
  float attn_softcap = 0;     // > 0: scores become cap * tanh(score / cap) before the mask
  FfnAct ffn_act = FfnAct::kSilu;
  bool ffn_gated = true;  // down(act(gate(x)) * up(x)), otherwise down(act(up(x)))
  int n_experts = 0;
  int n_experts_used = 0;     // per token
  int d_expert = 0;           // rows of an expert's gate and up
  int d_shared = 0;           // > 0: an expert of this width that every token uses
  bool shared_gate = false;   // the shared expert's output times sigmoid(x Wg)
  bool norm_topk = false;     // the used experts' probabilities are divided by their sum
  Mixer mixer = Mixer::kGqa;  // kShortConv: no heads, and everything about them has its default
  int conv_kernel = 0;        // kShortConv: the token itself and so many - 1 before it
};

struct ModelSpec {
  std::string arch;  // family, for people only ("llama"); never switched on
  int n_vocab = 0;
  int d_model = 0;
  int n_ctx_train = 0;  // positions the model was trained for
  float norm_eps = 0;
  bool tied_head = false;  // the head is the embedding table
  int n_rope = 0;          // rotated dimensions per head; a table has n_rope / 2 entries; 0: none
  float rope_factor = 1;   // multiplies cos and sin
  int32_t bos_id = -1;     // -1: none
  std::vector<int32_t> eos_ids;
  std::vector<LayerSpec> layers;
  NormKind norm = NormKind::kRms;  // of every norm but those of queries and keys
  float embed_scale = 1;           // multiplies embedding rows
  float final_softcap = 0;         // > 0: logits become cap * tanh(logit / cap)
  int n_positions = 0;             // > 0: learned positions, added to the embedding
  float rope_local_factor = 1;     // as rope_factor, of the local table
  int n_ctx_original = 0;          // > 0: a longer planned context uses "rope_inv_freq_long"
  bool headless = false;           // hidden states only; not with tied_head

  // Parses and range-checks; every value is bounded before anything is allocated from it.
  static Result<ModelSpec> from_json(std::string_view text);
  KvLayout kv_layout(KvFormat format) const;
  bool uses_local_rope() const;  // in any layer
};

}  // namespace edge
