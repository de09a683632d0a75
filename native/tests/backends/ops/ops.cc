#include "ops.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/os.h"
#include "kernels/elementwise.h"
#include "kernels/kernels.h"

namespace edge::test {
namespace {

ActNeeds needs(const Tensor& weight) { return needs_of({&weight}); }

double weight_bytes(const OpShape& s, int64_t n_rows, int64_t n_cols) {
  return static_cast<double>(
      tensor_bytes(s.format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols)).value());
}
double products(const OpShape& s, int64_t n_rows, int64_t n_cols) {
  return 2.0 * s.n_rows * static_cast<double>(n_rows) * static_cast<double>(n_cols);
}
int64_t n_heads_cols(const OpShape& s) { return int64_t{s.n_heads} * s.head_dim; }
int64_t n_kv_cols(const OpShape& s) { return int64_t{s.n_kv_heads} * s.head_dim; }
double row_bytes(const OpShape& s, int64_t n_cols) {
  return 4.0 * s.n_rows * static_cast<double>(n_cols);
}
double pages_bytes(const OpShape& s) {
  const double token = static_cast<double>(kv_head_bytes(s.kv_format, s.head_dim)) / kPageTokens;
  return token * s.n_kv_heads * (s.n_past + s.n_rows) * s.n_sequences;
}

template <class T>
std::string bytes_of(const T* values, int64_t n) {
  return {reinterpret_cast<const char*>(values), static_cast<size_t>(n) * sizeof(T)};
}

struct Embed {
  static void run(OpRig& rig) {
    const OpWeights& w = rig.weights();
    rig.backend().embed(w.embd, 1.5f, w.positions.is_valid() ? &w.positions : nullptr, rig.x());
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.x_, rig.shape().n_rows * rig.x_stride_);
  }
  static double flops(const OpShape& s) { return row_bytes(s, s.d_model) / 4; }
  static double bytes(const OpShape& s) { return row_bytes(s, s.d_model); }
};

struct Rope {
  static void run(OpRig& rig) {
    if (rig.rope.n_rope == 0) return;
    rig.backend().rope_table(rig.weights().inv_freq.as_f32(), 0.9f, rig.rope);
  }
  static std::string result(const OpRig& rig) {
    const int64_t n = int64_t{rig.shape().n_rows} * rig.rope.n_rope / 2;
    return rig.bytes_of(rig.rope.cos, n) + rig.bytes_of(rig.rope.sin, n);
  }
  static double flops(const OpShape& s) { return 40.0 * s.n_rows * s.n_rope; }
  static double bytes(const OpShape& s) { return row_bytes(s, s.n_rope); }
};

struct NormQuant {
  static void run(OpRig& rig) {
    rig.backend().norm_quant(rig.residual(), rig.x(), {}, rig.norm(), needs(rig.weights().q),
                             rig.model_act);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.x_, rig.shape().n_rows * rig.x_stride_) +
           rig.bytes_of(rig.model_act, needs(rig.weights().q));
  }
  static double flops(const OpShape& s) { return 8.0 * row_bytes(s, s.d_model) / 4; }
  static double bytes(const OpShape& s) { return 4 * row_bytes(s, s.d_model); }
};

struct Qkv {
  static void run(OpRig& rig) {
    rig.backend().qkv_rope_store(rig.model_act, rig.qkv(), rig.attention_shape(), rig.rope, rig.kv,
                                 rig.q_);
  }
  static std::string result(const OpRig& rig) {
    std::string bytes = rig.page_bytes();
    for (int r = 0; r < rig.shape().n_rows; ++r) {
      bytes += rig.bytes_of(rig.q_ + r * rig.q_stride_, n_heads_cols(rig.shape()));
    }
    return bytes;
  }
  static double flops(const OpShape& s) {
    return products(s, n_heads_cols(s) + 2 * n_kv_cols(s), s.d_model);
  }
  static double bytes(const OpShape& s) {
    return weight_bytes(s, n_heads_cols(s) + 2 * n_kv_cols(s), s.d_model);
  }
};

struct Attention {
  static void run(OpRig& rig) {
    rig.backend().attention(rig.q_, rig.attention_shape(), rig.kv, needs(rig.weights().o),
                            rig.heads_act);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.heads_act, needs(rig.weights().o));
  }
  static double flops(const OpShape& s) {
    return 4.0 * s.n_rows * static_cast<double>(n_heads_cols(s)) * (s.n_past + s.n_rows);
  }
  static double bytes(const OpShape& s) { return pages_bytes(s); }
};

struct Proj {
  static void run(OpRig& rig) {
    rig.backend().proj_residual(rig.heads_act, rig.weights().o, {}, rig.delta_, rig.x_stride_);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.delta_, rig.shape().n_rows * rig.x_stride_);
  }
  static double flops(const OpShape& s) { return products(s, s.d_model, n_heads_cols(s)); }
  static double bytes(const OpShape& s) { return weight_bytes(s, s.d_model, n_heads_cols(s)); }
};

struct AddResidual {
  static void run(OpRig& rig) { rig.backend().add_residual(rig.residual(), rig.x()); }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.x_, rig.shape().n_rows * rig.x_stride_);
  }
  static double flops(const OpShape& s) { return row_bytes(s, s.d_model) / 4; }
  static double bytes(const OpShape& s) { return 3 * row_bytes(s, s.d_model); }
};

struct Ffn {
  static void run(OpRig& rig) {
    rig.backend().ffn_in(rig.model_act, rig.ffn(), needs(rig.weights().down), rig.ffn_act);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.ffn_act, needs(rig.weights().down));
  }
  static double flops(const OpShape& s) {
    return (s.has_gate ? 2 : 1) * products(s, s.d_ffn, s.d_model);
  }
  static double bytes(const OpShape& s) {
    return (s.has_gate ? 2 : 1) * weight_bytes(s, s.d_ffn, s.d_model);
  }
};

struct Down {
  static void run(OpRig& rig) {
    rig.backend().proj_residual(rig.ffn_act, rig.weights().down, {}, rig.delta_, rig.x_stride_);
  }
  static std::string result(const OpRig& rig) { return Proj::result(rig); }
  static double flops(const OpShape& s) { return products(s, s.d_model, s.d_ffn); }
  static double bytes(const OpShape& s) { return weight_bytes(s, s.d_model, s.d_ffn); }
};

// Of the last row alone, as when a prompt has been read.
struct PickedNorm {
  static void run(OpRig& rig) {
    static thread_local int32_t last;
    last = rig.shape().n_rows - 1;
    rig.backend().norm_quant(rig.residual(), rig.x(), std::span(&last, 1), rig.norm(),
                             needs(rig.weights().output), rig.model_act);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.model_act, needs(rig.weights().output));
  }
  static double flops(const OpShape& s) { return NormQuant::flops(s) / s.n_rows; }
  static double bytes(const OpShape& s) { return NormQuant::bytes(s) / s.n_rows; }
};

struct Head {
  static void run(OpRig& rig) {
    rig.backend().head(rig.model_act, rig.weights().output, rig.shape().softcap, rig.logits_,
                       rig.logits_stride_);
  }
  static std::string result(const OpRig& rig) {
    return rig.bytes_of(rig.logits_, rig.shape().n_vocab);
  }
  static double flops(const OpShape& s) { return products(s, s.n_vocab, s.d_model) / s.n_rows; }
  static double bytes(const OpShape& s) { return weight_bytes(s, s.n_vocab, s.d_model); }
};

struct MoeRoute {
  static void run(OpRig& rig) {
    if (rig.shape().n_experts == 0) return;
    rig.backend().moe_route(rig.model_act, rig.experts(), rig.moe_shape(), rig.routes);
  }
  static std::string result(const OpRig& rig) {
    const OpShape& s = rig.shape();
    if (s.n_experts == 0) return "";
    const int n_pairs = s.n_rows * s.n_used;
    std::string bytes = bytes_of(rig.routes.ids, n_pairs) + bytes_of(rig.routes.weights, n_pairs) +
                        bytes_of(rig.routes.n_routed, s.n_experts);
    for (int r = 0; r < s.n_rows; ++r) bytes += bytes_of(rig.routes.shared + r * kTileRows, 1);
    return bytes;
  }
  static double flops(const OpShape& s) { return products(s, s.n_experts, s.d_model); }
  static double bytes(const OpShape& s) { return weight_bytes(s, s.n_experts, s.d_model); }
};

struct MoeFfn {
  static void run(OpRig& rig) {
    if (rig.shape().n_experts == 0) return;
    rig.backend().moe_ffn(rig.model_act, rig.experts(), rig.moe_shape(), rig.routes, rig.buffers,
                          rig.delta_, rig.x_stride_);
  }
  static std::string result(const OpRig& rig) { return Proj::result(rig); }
  static double flops(const OpShape& s) {
    return products(s, 3 * (s.n_used * s.d_expert + s.d_shared), s.d_model);
  }
  // Of one row; more rows need up to all experts.
  static double bytes(const OpShape& s) {
    return weight_bytes(s, 3 * (s.n_used * s.d_expert + s.d_shared), s.d_model);
  }
};

struct Conv {
  static void run(OpRig& rig) {
    if (rig.shape().n_taps == 0) return;
    rig.backend().short_conv(rig.model_act, rig.short_conv(), rig.state, rig.bcx_,
                             needs(rig.weights().q), rig.conv_act);
  }
  static std::string result(const OpRig& rig) {
    if (rig.shape().n_taps == 0) return "";
    return rig.page_bytes() + rig.bytes_of(rig.conv_act, needs(rig.weights().q));
  }
  static double flops(const OpShape& s) { return products(s, 3 * s.d_model, s.d_model); }
  static double bytes(const OpShape& s) { return weight_bytes(s, 3 * s.d_model, s.d_model); }
};

struct Top {
  static void run(OpRig& rig) {
    Backend& backend = rig.backend();
    const int64_t n = rig.shape().n_vocab;
    if (backend.has_top()) return backend.top(rig.logits_, n, rig.logits_stride_, 1, rig.top_);
    backend.wait();
    *rig.top_ = top_of({rig.logits_, static_cast<size_t>(n)});
  }
  static std::string result(const OpRig& rig) { return bytes_of(rig.top_, 1); }
  static double flops(const OpShape& s) { return 64.0 * static_cast<double>(s.n_vocab); }
  static double bytes(const OpShape& s) { return 4.0 * static_cast<double>(s.n_vocab); }
};

template <class T>
constexpr Op op_of(const char* name) {
  return {name, T::run, T::result, T::flops, T::bytes};
}

}  // namespace

TopTokens top_of(std::span<const float> logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, std::ranges::greater(),
                           [&](int32_t id) { return logits[static_cast<size_t>(id)]; });
  TopTokens top;
  top.n = std::min(kMostTopTokens, static_cast<int>(ids.size()));
  for (int i = 0; i < top.n; ++i) {
    top.ids[i] = ids[static_cast<size_t>(i)];
    top.logits[i] = logits[static_cast<size_t>(top.ids[i])];
  }
  const double largest = static_cast<double>(top.logits[0]);
  top.mass = kernel_table(Isa::kScalar)
                 .elementwise->exp_sum(logits.data(), static_cast<int64_t>(logits.size()), largest,
                                       1.0, nullptr);
  return top;
}

const std::vector<Op>& all_ops() {
  static const std::vector<Op> kOps = {
      op_of<Embed>("embed"),
      op_of<Rope>("rope_table"),
      op_of<NormQuant>("norm_quant"),
      op_of<Qkv>("qkv_rope_store"),
      op_of<Attention>("attention"),
      op_of<Proj>("proj_residual (o)"),
      op_of<AddResidual>("add_residual"),
      op_of<Ffn>("ffn_in"),
      op_of<Down>("proj_residual (down)"),
      op_of<MoeRoute>("moe_route"),
      op_of<MoeFfn>("moe_ffn"),
      op_of<Conv>("short_conv"),
      op_of<PickedNorm>("norm_quant of a picked row"),
      op_of<Head>("head"),
      op_of<Top>("top"),
  };
  return kOps;
}

Result<std::vector<std::string>> run_ops(OpRig& rig) {
  std::vector<std::string> results;
  rig.backend().begin_step(rig.rows());
  for (const Op& op : all_ops()) {
    op.run(rig);
    rig.backend().wait();
    results.push_back(op.result(rig));
  }
  EDGE_RETURN_IF_ERROR(rig.backend().end_step());
  return results;
}

double time_ms(OpRig& rig, const Op& op, int n, Status& status) {
  rig.backend().begin_step(rig.rows());
  op.run(rig);
  rig.backend().wait();
  const int64_t start_ns = monotonic_ns();
  for (int i = 0; i < n; ++i) op.run(rig);
  rig.backend().wait();
  const double ms = static_cast<double>(monotonic_ns() - start_ns) * 1e-6 / n;
  status = rig.backend().end_step();
  return ms;
}

}  // namespace edge::test
