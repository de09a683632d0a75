// Backend: the fused operations of the one decoder loop. CPU, CUDA, Metal and Vulkan implement the
// same list; the loop in model/decoder.cc never knows which it drives.
//
// Where an op is given LoraRows it reads the activations as floats too (ActNeeds.f32), and adds
// B (A x) to a product before its bias.
//
// Every op takes n_rows rows, each with its own sequence and position, so prefill, decode, batching
// and verification of drafts are one path. Pointers are in the backend's own memory (alloc()). Ops
// may be queued: results are defined after end_step(), which also reports what went wrong since
// begin_step() (kNumeric for non-finite activations).
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>

#include "backends/kv_layout.h"
#include "backends/op_kinds.h"
#include "backends/top_tokens.h"
#include "base/os.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace edge {

struct Adapter;  // model/adapter.h; to a backend only which rows have the same one

// One row of a step: a token of a sequence. Its keys and values go to `slot` of the pages, and it
// sees the slots up to that; `position` is what its embedding or its rotation is told. The two
// differ where tokens before it are no longer in the pages.
struct RowInput {
  int32_t token = 0;
  int32_t position = 0;
  int32_t slot = 0;
  KvView kv;
  const Adapter* adapter = nullptr;  // null: the model as it is
  // [d_model] that a draft head reads beside the token, valid until the step ends; null: zeros.
  const float* hidden = nullptr;
  // Of a row in a tree of drafts whose tokens do not stand one behind the other: the slots, its own
  // the last, that the last tail.size() tokens it sees are in, in their order. The first of them is
  // where it would be anyway, and none stands before it. Empty: every slot up to `slot`.
  std::span<const int32_t> tail = {};

  int n_seen() const {
    return tail.empty() ? slot + 1 : tail.front() + static_cast<int>(tail.size());
  }
  // Of token `i` of those seen, 0 <= i < n_seen().
  int seen_slot(int i) const {
    return tail.empty() || i < tail.front() ? i : tail[static_cast<size_t>(i - tail.front())];
  }
};
constexpr int kMostTail = 16;  // RowInput::tail

// Rows [row0, row0 + n_rows) of a step whose product with a matrix is y = W x + B (A x). a: F16
// [rank, columns of W]; b: F16 [rows of W, rank].
struct LoraRows {
  int row0 = 0;
  int n_rows = 0;
  const Tensor* a = nullptr;
  const Tensor* b = nullptr;
};
using LoraSpan = std::span<const LoraRows>;  // ascending, none twice; empty: W alone

constexpr int kPanelRows = 16;

// Int8 rows in panels of 16 (the last may be shorter), each panel block by block: q
// [n_blocks][rows of the panel][32] and d and bias alike, so that the rows a weight tile meets are
// next to each other.
struct Int8Rows {
  int n_rows = 0;
  int64_t n_blocks = 0;  // of 32 columns
  int8_t* q = nullptr;
  float* d = nullptr;       // scales of q, per row and 32 columns
  int32_t* bias = nullptr;  // -64 * sum of q, per row and 16 columns

  int panel_rows(int panel) const {
    const int left = n_rows - panel * kPanelRows;
    return left < kPanelRows ? left : kPanelRows;
  }
  // Of block `block` of row `row`, in units of blocks.
  int64_t block_index(int row, int64_t block) const {
    const int panel = row / kPanelRows;
    return panel * kPanelRows * n_blocks + block * panel_rows(panel) + row % kPanelRows;
  }
};

// Activation rows as matmuls read them. Which parts are filled depends on the consumers' Act.
// n_cols is padded to 32; the padding is zero.
struct ActRows {
  int n_rows = 0;             // set by the op that fills it
  int64_t n_cols_padded = 0;  // also the stride of f, in elements
  Int8Rows a8;
  Int8Rows a8x2;       // rows 2r and 2r + 1: row r and the residual of its rounding
  float* f = nullptr;  // [n_rows][n_cols_padded]

  void set_rows(int n) {
    n_rows = n;
    a8.n_rows = n;
    a8x2.n_rows = 2 * n;
  }
  void set_cols(int64_t n_padded) {
    n_cols_padded = n_padded;
    a8.n_blocks = a8x2.n_blocks = n_padded / 32;
  }
};

struct RopeTable {
  const float* cos = nullptr;  // [n_rows][n_rope / 2]
  const float* sin = nullptr;
  int n_rope = 0;  // rotated dimensions of a head (<= head_dim), halves convention
};

// Slots of a sequence.
struct KvSlotRange {
  KvView view;
  int first = 0;
  int n = 0;
};

// What keys are centred by and their channels multiplied with where they are stored so
// (KvLayerLayout): (key - mean) * scale, behind the rotary turn. Queries are divided by the scale.
struct KeyBalance {
  const Tensor* mean = nullptr;  // F32 [n_kv_heads * head_dim]
  const Tensor* scale = nullptr;
};

// How keys turn when their tokens come to stand n_positions earlier.
struct KeyTurn {
  const float* inv_freq = nullptr;  // [n_rope / 2]
  int n_rope = 0;
  int n_positions = 0;
  KeyBalance balance = {};
};

struct AttentionShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;    // of the scores, 1/sqrt(head_dim) unless the model says otherwise
  float softcap = 0;  // > 0: scores become softcap * tanh(score / softcap) before the mask
  int window = 0;     // > 0: position p sees p - window < j <= p
};

// Rows of floats, such as the residual stream.
struct FloatRows {
  float* data = nullptr;
  int64_t n_cols = 0;
  int64_t stride = 0;  // n_cols rounded up to 16
};

// A norm over the columns of a row. Without weight there is none.
struct Norm {
  NormKind kind = NormKind::kRms;
  const Tensor* weight = nullptr;  // F32 [n_cols]
  const Tensor* bias = nullptr;    // F32 [n_cols], of kLayer
  float eps = 0;
};

// What a projection adds to the residual stream: norm(delta + bias).
struct Residual {
  const float* delta = nullptr;  // rows as those it is added to; null: nothing
  const Tensor* bias = nullptr;  // F32 [d_model]; null: none
  Norm norm;
};

// Queries, keys and values of a layer. Biases and norms may be null.
struct QkvWeights {
  const Tensor *q = nullptr, *k = nullptr, *v = nullptr;
  const Tensor *q_bias = nullptr, *k_bias = nullptr, *v_bias = nullptr;  // F32, a value a row
  // RMS norm of queries and of keys before they turn: over head_dim columns, each head by itself,
  // or over all heads, as many as the weight is long. F32.
  const Tensor *q_norm = nullptr, *k_norm = nullptr;
  float norm_eps = 0;
  KeyBalance balance = {};
  LoraSpan q_lora = {}, k_lora = {}, v_lora = {};
};

// Of a gated short convolution: [B, C, x] = act in^T, y = C * sum over taps of tap * (B * x) of the
// token so many before; before the text there is none.
struct ShortConv {
  const Tensor* in = nullptr;    // [3 * d_model, d_model]
  const Tensor* taps = nullptr;  // F32 [n_taps * d_model], the oldest token's first
  int n_taps = 0;
};

// The first half of a feed-forward network. Without gate: f(act Wup).
struct FfnIn {
  const Tensor *gate = nullptr, *up = nullptr;
  const Tensor *gate_bias = nullptr, *up_bias = nullptr;  // F32 [d_ffn]; null: none
  FfnAct act = FfnAct::kSilu;
  LoraSpan gate_lora = {}, up_lora = {};
};

// What an op must produce for its consumers.
struct ActNeeds {
  bool a8 = false;
  bool f32 = false;
  bool a8x2 = false;
  bool operator==(const ActNeeds&) const = default;
};

// What these tensors read, and adapters with them; empty ones read nothing.
inline ActNeeds needs_of(std::initializer_list<const Tensor*> consumers,
                         std::initializer_list<LoraSpan> loras = {}) {
  ActNeeds needs;
  for (const LoraSpan& lora : loras) needs.f32 |= !lora.empty();
  for (const Tensor* tensor : consumers) {
    if (!tensor->is_valid()) continue;
    needs.a8 |= tensor->act == Act::kA8;
    needs.f32 |= tensor->act == Act::kF32;
    needs.a8x2 |= tensor->act == Act::kA8x2;
  }
  return needs;
}

// A mixture of experts: n_used of n_experts feed-forward networks for each row, and one more for
// all rows if d_shared > 0.
struct MoeShape {
  int n_experts = 0;
  int n_used = 0;
  int64_t d_expert = 0;
  int64_t d_shared = 0;
  FfnAct act = FfnAct::kSilu;
  bool normalize = false;  // a row's n_used weights are divided by their sum
};

// Of one network; of experts stacked, expert e from row e * (rows of one rounded up to 16) on.
struct ExpertTensors {
  const Tensor* gate = nullptr;
  const Tensor* up = nullptr;
  const Tensor* down = nullptr;
};

struct MoeTensors {
  const Tensor* router = nullptr;       // [n_experts, d_model]
  ExpertTensors experts;                // stacked
  ExpertTensors shared;                 // null without one
  const Tensor* shared_gate = nullptr;  // [1, d_model], whose sigmoid is its weight; null: 1
};

// Which experts a row goes to, and what their outputs are multiplied with.
struct MoeRoutes {
  float* logits = nullptr;       // [n_rows][n_experts rounded up to 16], scratch
  float* shared = nullptr;       // [n_rows][16]: the shared expert's weight comes first
  int32_t* ids = nullptr;        // [n_rows][n_used], ascending
  float* weights = nullptr;      // [n_rows][n_used]
  uint64_t* n_routed = nullptr;  // [n_experts] rows so far, of one layer
};

// Activations of the experts: rows are gathered by expert, max_pairs of them at a time.
struct MoeBuffers {
  int64_t max_pairs = 0;  // rows times experts used; >= n_used
  ActRows gathered;       // [max_pairs][d_model]; nothing in it where a step has one row
  ActRows hidden;         // [max_pairs][d_expert]
  ActRows shared_hidden;  // [n_rows][d_shared]
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;

  // Whether ops take pointers to any memory of the process. Otherwise: to what alloc() and
  // page_allocator() gave, which the host may touch when nothing is queued, and, of weights, to
  // what was given to load().
  virtual bool shares_memory() const { return true; }
  // Nothing is queued any more.
  virtual void wait() {}
  // Copies what ops have given to any memory of the process; there after end_step().
  virtual void fetch(const void* from, size_t n_bytes, void* to) { std::memcpy(to, from, n_bytes); }
  // Bytes that tensors of later ops are in, such as a mapped file. They stay as and where they are
  // until the backend is gone.
  virtual Status load(std::span<const std::byte> /*weights*/) { return {}; }
  // Bytes of weights that load() has room for beside what steps take; SIZE_MAX where they stay
  // where they are.
  virtual Result<size_t> weight_room() const { return SIZE_MAX; }
  // The first n layers, and all before them, run on the host: their weights are not loaded.
  virtual void set_host_layers(size_t /*n*/) {}
  // Where the pages of KvViews come from.
  virtual PageBuffer::Allocate page_allocator() const { return PageBuffer::allocate; }
  // What models may ask for; one that asks for more is refused before its first step.
  virtual bool has_experts() const { return true; }
  virtual bool has_adapters() const { return true; }

  // Backend memory for activations; freed with the backend. Zero-filled.
  virtual Result<std::byte*> alloc(size_t n_bytes) = 0;

  // rows: the step's rows; valid until end_step().
  virtual void begin_step(std::span<const RowInput> rows) = 0;
  virtual Status end_step() = 0;
  // Ops to come are those of this layer, or behind the last one those of the head.
  virtual void begin_layer(size_t /*layer*/) {}

  // Which weights the matmul after the coming one reads, in turn; those of ffn_in by their gate
  // alone, or up where there is no gate. A hint: where threads wait for each other they may fetch
  // them meanwhile.
  virtual void expect(std::initializer_list<const Tensor*> weights) = 0;

  // x[r] = row tokens[r] of the embedding table times `scale`, plus, unless null, the row of
  // `positions` at the row's position.
  virtual void embed(const Tensor& table, float scale, const Tensor* positions,
                     const FloatRows& x) = 0;
  // angle = fl32(position * inv_freq[i]); cos and sin times `factor`.
  virtual void rope_table(const float* inv_freq, float factor, RopeTable& out) = 0;
  // x += what `more` says, then out = quant(norm(x)): residual, norm and quantization in one pass
  // over a row. Only rows `pick[i]`, each once, if pick is not empty.
  virtual void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                          const Norm& norm, ActNeeds needs, ActRows& out) = 0;
  // x += what `more` says.
  virtual void add_residual(const Residual& more, const FloatRows& x) = 0;
  // q[r] = rope(norm(act Wq + bias)), keys (the same) and values of row r go to its page. Nothing
  // turns where rope.n_rope is 0. q: [n_rows][stride], stride = n_heads * head_dim rounded up
  // to 16.
  virtual void qkv_rope_store(const ActRows& act, const QkvWeights& weights,
                              const AttentionShape& shape, const RopeTable& rope,
                              const KvLayerLayout& kv, float* q) = 0;
  // out = quant(softmax(cap(q K^T * scale)) V), causal and within the window, over each row's own
  // sequence. q is overwritten.
  virtual void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                         ActNeeds needs, ActRows& out) = 0;
  // shares[kv_head][slot] = sum, over the step's rows and the queries that share the kv head, of
  // the share of their attention that the slot gets: softmax(cap(q K^T * scale)), before values.
  // The rows are of one sequence without a window. Slots up to the last row's; between
  // qkv_rope_store() and attention().
  virtual void attention_shares(const float* q, const AttentionShape& shape,
                                const KvLayerLayout& kv, float* shares) = 0;
  // Outside a step. The keys of these slots as if their tokens stood turn.n_positions earlier:
  // turned in f32, rounded to what is stored. Pages that are gone are left out. False, with the
  // slots unspecified, if a key becomes too large for its format.
  virtual bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv,
                         const KeyTurn& turn) = 0;
  // Outside a step. What stands in slot kept[i] of the kv head comes to stand in slot i, unchanged
  // but for the rounding of first pages in a format of their own. `kept` ascends. False, with the
  // slots unspecified, if something is too large for that format.
  virtual bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                          std::span<const int32_t> kept) = 0;
  // out = quant(the gated short convolution of act); B * x of row r goes to its page. bcx:
  // [n_rows][3 * d_model rounded up to 16], scratch. A backend that does not have it says so by
  // has_short_conv(), and no model with such a layer is opened on it.
  virtual bool has_short_conv() const { return false; }
  virtual void short_conv(const ActRows& /*act*/, const ShortConv& /*conv*/,
                          const KvLayerLayout& /*kv*/, float* /*bcx*/, ActNeeds /*needs*/,
                          ActRows& /*out*/) {}
  // delta = act W^T, for the Residual of a later op. delta:
  // [n_rows][stride], stride = weight rows rounded up to 16.
  virtual void proj_residual(const ActRows& act, const Tensor& weight, LoraSpan lora, float* delta,
                             int64_t stride) = 0;
  // out = quant(f(act Wgate) * (act Wup)), each product with its bias.
  virtual void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) = 0;
  // The choice of experts: p = softmax(act Wr^T) over all of them, of which the n_used largest
  // stay, ties to the lower id. Counts them in out.n_routed.
  virtual void moe_route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                         MoeRoutes& out) = 0;
  // delta = sum over a row's experts, by ascending id and the shared one last, of weight *
  // ((act(x Wgate) * (x Wup)) Wdown), each added by fma to a sum that starts at 0. delta as in
  // proj_residual().
  virtual void moe_ffn(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                       const MoeRoutes& routes, MoeBuffers& buffers, float* delta,
                       int64_t stride) = 0;
  // logits[i] = act[i] W^T, with softcap > 0 softcap * tanh(that / softcap); logits:
  // [act.n_rows][stride].
  virtual void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
                    int64_t stride) = 0;
  // Of each of n_rows rows of n finite logits, `stride` apart; out: [n_rows], memory of the
  // backend. Only where logits are far from who samples: a backend that has it says so by
  // has_top().
  virtual bool has_top() const { return false; }
  virtual void top(const float* /*logits*/, int64_t /*n*/, int64_t /*stride*/, int /*n_rows*/,
                   TopTokens* /*out*/) {}
};

}  // namespace edge
