#include "backend_ops_check.h"

#include <algorithm>
#include <limits>
#include <span>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "ops.h"

namespace edge::test {
namespace {

std::unique_ptr<Backend> scalar_cpu() { return create_cpu_backend(kernel_table(Isa::kScalar), 1); }

// Odd widths on purpose. Every format, act, KV format, norm and activation function is in one.
const OpShape kSmall = {.d_model = 88,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .head_dim = 24,
                        .d_ffn = 100,
                        .n_vocab = 70,
                        .n_rope = 16,
                        .n_rows = 1,
                        .n_past = 5};

std::vector<OpShape> shapes() {
  std::vector<OpShape> all;
  const auto add = [&](const char* name, const auto& change) {
    OpShape shape = kSmall;
    shape.name = name;
    change(shape);
    all.push_back(shape);
  };
  for (const Format format :
       {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32, Format::kE6_16,
        Format::kE8_32, Format::kK4_32, Format::kL4_32, Format::kL8_32, Format::kF16}) {
    add(format_name(format).data(), [&](OpShape& s) { s.format = format, s.n_rows = 3; });
  }
  add("f32 activations", [](OpShape& s) { s.act = Act::kF32, s.n_rows = 2; });
  add("a8x2, nine rows: two panels", [](OpShape& s) { s.act = Act::kA8x2, s.n_rows = 9; });
  add("a prompt of 19 rows", [](OpShape& s) { s.n_rows = 19; });
  add("more tiles than a chunk", [](OpShape& s) { s.d_model = 1100, s.n_rows = 2; });
  for (const KvFormat format :
       {KvFormat::kF16, KvFormat::kK8V8, KvFormat::kK8V4, KvFormat::kK6V4}) {
    add("300 tokens back", [&](OpShape& s) { s.kv_format = format, s.n_past = 300, s.n_rows = 3; });
    add("everything but plain", [&](OpShape& s) {
      s.kv_format = format, s.n_past = 40, s.is_plain = false, s.head_dim = 64, s.softcap = 20;
      s.n_rows = 2;
    });
  }
  add("heads of 80, three kv heads, few turned", [](OpShape& s) {
    s.n_heads = s.n_kv_heads = 3, s.head_dim = 80, s.n_rope = 20, s.kv_format = KvFormat::kK6V4;
    s.n_past = 33;
  });
  add("heads of 160", [](OpShape& s) {
    s.n_heads = 2, s.n_kv_heads = 1, s.head_dim = 160, s.kv_format = KvFormat::kK8V4, s.n_past = 40;
  });
  add("layer norm, gelu, no gate", [](OpShape& s) {
    s.norm = NormKind::kLayer, s.ffn_act = FfnAct::kGelu, s.has_gate = false, s.is_plain = false;
    s.norms_all = true, s.n_rope = 0, s.n_rows = 2;
  });
  add("gelu by tanh", [](OpShape& s) { s.ffn_act = FfnAct::kGeluTanh; });
  add("relu", [](OpShape& s) { s.ffn_act = FfnAct::kRelu, s.has_gate = false; });
  add("a window", [](OpShape& s) { s.window = 20, s.n_past = 290, s.n_rows = 3; });
  add("eight queries to a key", [](OpShape& s) {
    s.n_heads = 6, s.n_rows = 7, s.n_past = 252, s.kv_format = KvFormat::kK8V4;
  });
  add("more heads to a key than queries at once",
      [](OpShape& s) { s.n_heads = 10, s.n_kv_heads = 1, s.n_rows = 2, s.n_past = 30; });
  add("heads of 160, four queries", [](OpShape& s) {
    s.n_heads = 2, s.n_kv_heads = 1, s.head_dim = 160, s.kv_format = KvFormat::kF16, s.n_rows = 3;
  });
  add("heads of 288, alone", [](OpShape& s) {
    s.n_heads = s.n_kv_heads = 1, s.head_dim = 288, s.n_rows = 2, s.n_past = 20;
  });
  const auto mix = [](OpShape& s) {
    s.n_experts = 6, s.n_used = 3, s.d_expert = 48, s.d_shared = 32, s.n_taps = 3;
  };
  for (const Act act : {Act::kA8, Act::kF32, Act::kA8x2}) {
    add("experts and a short convolution, one row", [&](OpShape& s) { mix(s), s.act = act; });
    add("experts, five rows",
        [&](OpShape& s) { mix(s), s.act = act, s.n_rows = 5, s.shared_gate = true, s.n_past = 1; });
  }
  add("experts of a tree of drafts", [&](OpShape& s) {
    mix(s), s.n_rows = 7, s.n_tail = 4, s.n_past = 28, s.format = Format::kK4_32;
  });
  add("experts of F16", [&](OpShape& s) { mix(s), s.format = Format::kF16, s.n_rows = 2; });
  add("two sequences", [](OpShape& s) { s.n_sequences = 2, s.n_rows = 6; });
  add("a tree of drafts", [](OpShape& s) { s.n_rows = 7, s.n_tail = 4, s.n_past = 28; });
  add("a tree in 4 bits",
      [](OpShape& s) { s.n_rows = 5, s.n_tail = 3, s.n_past = 50, s.kv_format = KvFormat::kK8V4; });
  return all;
}

std::vector<std::string> results_of(OpRig& rig) {
  auto results = run_ops(rig);
  REQUIRE(results.status().message() == "");
  return results.take();
}

std::unique_ptr<OpRig> rig_of(const OpShape& shape, const OpWeights& weights,
                              std::unique_ptr<Backend> backend) {
  auto rig = OpRig::create(shape, weights, std::move(backend));
  REQUIRE(rig.status().message() == "");
  return rig.take();
}

// What a norm and a feed-forward layer's first products make, and of a mixture of experts all of
// it; no more of a step.
std::string products_of(OpRig& rig) {
  constexpr std::string_view kOfMatrix[] = {"norm_quant", "ffn_in"};
  constexpr std::string_view kOfExperts[] = {"norm_quant", "moe_route", "moe_ffn"};
  const auto names = rig.shape().n_experts == 0 ? std::span<const std::string_view>(kOfMatrix)
                                                : std::span<const std::string_view>(kOfExperts);
  std::string result;
  rig.backend().begin_step(rig.rows());
  for (const Op& op : all_ops()) {
    if (std::find(names.begin(), names.end(), op.name) == names.end()) continue;
    op.run(rig);
    rig.backend().wait();
    result += op.result(rig);
  }
  REQUIRE(rig.backend().end_step().message() == "");
  return result;
}

void check_equal(OpRig& wanted, OpRig& found) {
  const auto oracle = results_of(wanted), results = results_of(found);
  for (size_t i = 0; i < all_ops().size(); ++i) {
    const std::string op = all_ops()[i].name;
    CAPTURE(op);
    REQUIRE(results[i].size() == oracle[i].size());
    const auto [a, b] = std::mismatch(oracle[i].begin(), oracle[i].end(), results[i].begin());
    CAPTURE(a - oracle[i].begin());
    REQUIRE(a == oracle[i].end());
  }
}

}  // namespace

void check_all_shapes(const MakeBackend& make) {
  for (const OpShape& shape : shapes()) {
    const std::string name = shape.name;
    CAPTURE(name);
    CAPTURE(static_cast<int>(shape.kv_format));
    const OpWeights weights(shape);
    const auto wanted = rig_of(shape, weights, scalar_cpu());
    const auto found = rig_of(shape, weights, make());
    check_equal(*wanted, *found);
    check_equal(*wanted, *found);  // once more, on what the first step left
  }
}

// Logits with many that are equal, of both zeros, in several slices, and in less than one.
void check_top(const MakeBackend& make) {
  constexpr int64_t kStride = 2800;
  constexpr int kRows = 3;
  const auto backend = make();
  if (!backend->has_top()) return;
  auto* logits = reinterpret_cast<float*>(backend->alloc(kRows * kStride * sizeof(float)).value());
  auto* out = reinterpret_cast<TopTokens*>(backend->alloc(kRows * sizeof(TopTokens)).value());
  for (const int64_t n : {int64_t{2700}, int64_t{1024}, int64_t{65}, int64_t{5}}) {
    CAPTURE(n);
    for (int64_t i = 0; i < kRows * kStride; ++i) {
      const int64_t level = i * 7919 % 401 - (i / kStride == 1 ? 500 : 200);
      logits[i] = level == 0 && i % 2 == 1 ? -0.0f : static_cast<float>(level) * 0.25f;
    }
    const RowInput row;
    backend->begin_step({&row, 1});
    backend->top(logits, n, kStride, kRows, out);
    REQUIRE(backend->end_step().message() == "");
    for (int r = 0; r < kRows; ++r) {
      const TopTokens wanted = top_of({logits + r * kStride, static_cast<size_t>(n)});
      REQUIRE(out[r].n == wanted.n);
      for (int i = 0; i < wanted.n; ++i) {
        REQUIRE(out[r].ids[i] == wanted.ids[i]);
        REQUIRE(out[r].logits[i] == wanted.logits[i]);
      }
      REQUIRE(out[r].mass == wanted.mass);
    }
  }
}

void check_not_finite(const MakeBackend& make) {
  const OpWeights weights(kSmall);
  const auto wanted = rig_of(kSmall, weights, scalar_cpu());
  const auto found = rig_of(kSmall, weights, make());
  for (OpRig* rig : {wanted.get(), found.get()}) {
    rig->delta_[3] = std::numeric_limits<float>::infinity();
    CHECK(run_ops(*rig).status().code() == Code::kNumeric);
    std::fill_n(rig->delta_, kSmall.d_model, 0.25f);
  }
  check_equal(*wanted, *found);
}

void check_rows_alone(const MakeBackend& make) {
  OpShape shape = kSmall;
  shape.n_rows = 11;
  const OpWeights weights(shape);
  const auto together = rig_of(shape, weights, make());
  static_cast<void>(results_of(*together));
  shape.n_rows = 1;
  const auto alone = rig_of(shape, weights, make());
  static_cast<void>(results_of(*alone));
  // Row 0 sees nothing of the others.
  const auto row = [](const OpRig& rig) { return OpRig::bytes_of(rig.delta_, rig.x_stride_); };
  CHECK(row(*together) == row(*alone));
}

void check_products(const MakeBackend& make) {
  const auto check_shape = [&](const OpShape& shape) {
    const std::string name(format_name(shape.format));
    CAPTURE(name);
    CAPTURE(shape.n_rows);
    CAPTURE(shape.n_experts);
    const OpWeights weights(shape);
    const auto wanted = rig_of(shape, weights, scalar_cpu());
    const auto found = rig_of(shape, weights, make());
    REQUIRE(products_of(*wanted) == products_of(*found));
  };
  const auto check = [&](Format format, int n_rows) {
    OpShape shape = kSmall;
    shape.format = format;
    shape.d_model = 290;
    shape.n_rows = n_rows;
    check_shape(shape);
  };
  // All rows at a time, so that an expert has enough of them.
  const auto check_experts = [&](Format format, Act act, int n_rows) {
    OpShape shape = kSmall;
    shape.format = format;
    shape.act = act;
    shape.d_model = 176;
    shape.n_rows = shape.expert_rows = n_rows;
    shape.n_experts = 4, shape.n_used = 2, shape.d_expert = 80, shape.d_shared = 16;
    shape.n_taps = 2;
    check_shape(shape);
  };
  for (const Format format :
       {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32, Format::kE6_16,
        Format::kE8_32, Format::kK4_32, Format::kL4_32, Format::kL8_32}) {
    check(format, 18);
  }
  for (const Format format : {Format::kE4_16, Format::kK4_32, Format::kL8_32}) {
    check(format, 12);
    check(format, 70);
  }
  for (const Format format : {Format::kE4_32, Format::kL4_32}) check_experts(format, Act::kA8, 20);
  check_experts(Format::kE4_16, Act::kA8x2, 19);
  check_experts(Format::kK4_32, Act::kA8, 70);
}

}  // namespace edge::test
