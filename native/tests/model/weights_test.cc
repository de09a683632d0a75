#include "model/weights.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "bind_fixture.h"

namespace {

using edge::Act;
using edge::Code;
using edge::Format;
using edge::ModelSpec;
using edge::Weights;
using edge::test::bind_status;
using edge::test::FixtureTensor;
using edge::test::named;

// Two layers that differ, odd widths, grouped heads.
ModelSpec make_spec(bool tied_head) {
  ModelSpec spec;
  spec.arch = "llama";
  spec.n_vocab = 37;
  spec.d_model = 20;
  spec.n_ctx_train = 64;
  spec.norm_eps = 1e-5f;
  spec.tied_head = tied_head;
  spec.n_rope = 8;
  spec.layers = {{4, 2, 8, 44}, {2, 2, 10, 17}};
  spec.layers[1].balance_keys = true;
  return spec;
}

std::vector<FixtureTensor> make_tensors(const ModelSpec& spec, Format format, Act act) {
  std::vector<FixtureTensor> out;
  const auto matrix = [&](const std::string& prefix, const std::string& role, int64_t n_rows,
                          int64_t n_cols) {
    out.push_back({prefix + role, role, format, n_rows, n_cols, act});
  };
  const auto vector = [&](const std::string& prefix, const std::string& role, int64_t n) {
    out.push_back({prefix + role, role, Format::kF32, 1, n, Act::kA8});
  };
  matrix("", "token_embd", spec.n_vocab, spec.d_model);
  vector("", "rope_inv_freq", spec.n_rope / 2);
  if (spec.n_positions > 0) {
    out.push_back({"position_embd", "position_embd", Format::kF16, spec.n_positions, spec.d_model,
                   Act::kF32});
  }
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const edge::LayerSpec& layer = spec.layers[l];
    const std::string prefix = "layers." + std::to_string(l) + ".";
    vector(prefix, "attn_norm", spec.d_model);
    matrix(prefix, "attn_q", layer.n_heads * layer.head_dim, spec.d_model);
    matrix(prefix, "attn_k", layer.n_kv_heads * layer.head_dim, spec.d_model);
    matrix(prefix, "attn_v", layer.n_kv_heads * layer.head_dim, spec.d_model);
    if (layer.balance_keys) {
      vector(prefix, "attn_k_mean", layer.n_kv_heads * layer.head_dim);
      vector(prefix, "attn_k_scale", layer.n_kv_heads * layer.head_dim);
    }
    matrix(prefix, "attn_o", spec.d_model, layer.n_heads * layer.head_dim);
    vector(prefix, "ffn_norm", spec.d_model);
    matrix(prefix, "ffn_gate", layer.d_ffn, spec.d_model);
    matrix(prefix, "ffn_up", layer.d_ffn, spec.d_model);
    matrix(prefix, "ffn_down", spec.d_model, layer.d_ffn);
  }
  vector("", "output_norm", spec.d_model);
  if (!spec.tied_head) matrix("", "output", spec.n_vocab, spec.d_model);
  return out;
}

}  // namespace

TEST_CASE("every tensor is bound to its place, for every weight format") {
  const ModelSpec spec = make_spec(false);
  for (const Format format :
       {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32, Format::kE6_16,
        Format::kE8_32, Format::kK4_32, Format::kL4_32, Format::kL8_32, Format::kF16}) {
    const Act act = format == Format::kF16 ? Act::kF32 : Act::kA8;
    auto file = edge::test::open_fixture(make_tensors(spec, format, act), "{}");
    REQUIRE_MESSAGE(file.is_ok(), file.status().message());
    auto bound = Weights::bind(*file.value(), spec);
    REQUIRE_MESSAGE(bound.is_ok(), bound.status().message());
    const Weights& w = bound.value();
    REQUIRE(w.layers.size() == 2);
    CHECK(w.layers[1].ffn_down.data == file.value()->find("layers.1.ffn_down")->tensor.data);
    CHECK(w.layers[1].ffn_down.n_cols == 17);
    CHECK(w.layers[0].attn_q.n_rows == 32);
    CHECK(w.layers[0].attn_k.n_rows == 16);
    CHECK(w.layers[0].attn_k_mean.data == nullptr);
    CHECK(w.layers[1].attn_k_mean.n_cols == 20);
    CHECK(w.layers[1].attn_k_scale.data ==
          file.value()->find("layers.1.attn_k_scale")->tensor.data);
    CHECK(w.rope_inv_freq.n_cols == 4);
    CHECK(w.output.data == file.value()->find("output")->tensor.data);
    CHECK(w.output.format == format);
  }
}

TEST_CASE("a tied head is the embedding table") {
  const ModelSpec spec = make_spec(true);
  auto file = edge::test::open_fixture(make_tensors(spec, Format::kE4_16, Act::kA8), "{}");
  REQUIRE(file.is_ok());
  auto bound = Weights::bind(*file.value(), spec);
  REQUIRE(bound.is_ok());
  CHECK(bound.value().output.data == bound.value().token_embd.data);
}

TEST_CASE("each missing tensor is named") {
  const ModelSpec spec = make_spec(false);
  const auto all = make_tensors(spec, Format::kE4_16, Act::kA8);
  for (size_t i = 0; i < all.size(); ++i) {
    auto tensors = all;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
    const edge::Status status = bind_status(tensors, spec);
    CAPTURE(all[i].name);
    CHECK(status.code() == Code::kTensorMissing);
    CHECK(status.message().find("'" + all[i].name + "'") != std::string::npos);
  }
}

TEST_CASE("a tensor with a wrong shape is refused, transposed or one off") {
  const ModelSpec spec = make_spec(false);
  const auto all = make_tensors(spec, Format::kE4_16, Act::kA8);
  for (const FixtureTensor& tensor : all) {
    auto tensors = all;
    named(tensors, tensor.name).n_cols += 1;
    CAPTURE(tensor.name);
    CHECK(bind_status(tensors, spec).code() == Code::kTensorShape);
  }
  auto tensors = all;
  std::swap(named(tensors, "layers.0.ffn_up").n_rows, named(tensors, "layers.0.ffn_up").n_cols);
  CHECK(bind_status(tensors, spec).code() == Code::kTensorShape);
}

TEST_CASE("a tensor with another role is refused") {
  const ModelSpec spec = make_spec(false);
  auto tensors = make_tensors(spec, Format::kE4_16, Act::kA8);
  named(tensors, "layers.1.ffn_up").role = "ffn_gate";
  CHECK(bind_status(tensors, spec).code() == Code::kTensorRole);
}

TEST_CASE("vectors must be F32, matrices tiled") {
  const ModelSpec spec = make_spec(false);
  const auto all = make_tensors(spec, Format::kE4_16, Act::kA8);
  auto tensors = all;
  named(tensors, "output_norm").format = Format::kE8_32;
  CHECK(bind_status(tensors, spec).code() == Code::kTensorFormat);
  for (const Format flat : {Format::kF32, Format::kU8}) {
    tensors = all;
    FixtureTensor& output = named(tensors, "output");
    output = {output.name, output.role, flat, 1, output.n_rows * output.n_cols, Act::kA8};
    CHECK(bind_status(tensors, spec).code() == Code::kTensorFormat);
  }
}

TEST_CASE("F16 weights with 8-bit activations are refused") {
  const ModelSpec spec = make_spec(false);
  CHECK(bind_status(make_tensors(spec, Format::kF16, Act::kA8), spec).code() == Code::kTensorAct);
}

TEST_CASE("a tensor that the spec has no place for is refused, blobs are not") {
  const ModelSpec tied = make_spec(true);
  auto tensors = make_tensors(tied, Format::kE4_16, Act::kA8);
  tensors.push_back({"tokenizer", "tokenizer", Format::kU8, 1, 100, Act::kA8});
  CHECK(bind_status(tensors, tied).is_ok());
  tensors.push_back({"output", "output", Format::kE4_16, 37, 20, Act::kA8});
  const edge::Status status = bind_status(tensors, tied);
  CHECK(status.code() == Code::kTensorUnexpected);
  CHECK(status.message().find("'output'") != std::string::npos);
}

namespace {

// The first layer with everything a plain one does not have.
ModelSpec make_odd_spec() {
  ModelSpec spec = make_spec(true);
  spec.norm = edge::NormKind::kLayer;
  spec.n_positions = 64;
  spec.n_ctx_original = 32;
  edge::LayerSpec& layer = spec.layers[0];
  layer.rope = edge::RopeUse::kLocal;
  layer.post_norm = layer.qkv_bias = layer.o_bias = layer.ffn_bias = true;
  layer.qk_norm = edge::QkNorm::kHead;
  spec.layers[1].qk_norm = edge::QkNorm::kFull;
  spec.layers[1].pre_norm = false;
  spec.layers[1].ffn_gated = false;
  return spec;
}

std::vector<FixtureTensor> make_odd_tensors(const ModelSpec& spec) {
  std::vector<FixtureTensor> tensors = make_tensors(spec, Format::kE4_16, Act::kA8);
  const auto remove = [&](const std::string& name) {
    std::erase_if(tensors, [&](const FixtureTensor& t) { return t.name == name; });
  };
  const auto vector = [&](const std::string& prefix, const std::string& role, int64_t n) {
    tensors.push_back({prefix + role, role, Format::kF32, 1, n, Act::kA8});
  };
  for (const char* name : {"layers.1.attn_norm", "layers.1.ffn_norm", "layers.1.ffn_gate"}) {
    remove(name);
  }
  for (const char* role : {"rope_inv_freq_local", "rope_inv_freq_long"}) vector("", role, 4);
  vector("", "output_norm_bias", 20);
  const std::string p = "layers.0.";
  for (const char* role :
       {"attn_norm_bias", "ffn_norm_bias", "attn_post_norm", "ffn_post_norm", "attn_post_norm_bias",
        "ffn_post_norm_bias", "attn_o_bias", "ffn_down_bias"}) {
    vector(p, role, 20);
  }
  vector(p, "attn_q_bias", 32);
  vector(p, "attn_k_bias", 16);
  vector(p, "attn_v_bias", 16);
  vector(p, "attn_q_norm", 8);
  vector(p, "attn_k_norm", 8);
  vector(p, "ffn_gate_bias", 44);
  vector(p, "ffn_up_bias", 44);
  vector("layers.1.", "attn_q_norm", 20);
  vector("layers.1.", "attn_k_norm", 20);
  return tensors;
}

}  // namespace

TEST_CASE("what a spec asks for beyond a plain model must be there, and nothing else may") {
  const ModelSpec spec = make_odd_spec();
  const std::vector<FixtureTensor> tensors = make_odd_tensors(spec);
  const edge::Status status = bind_status(tensors, spec);
  REQUIRE_MESSAGE(status.is_ok(), status.message());
  for (size_t i = 0; i < tensors.size(); ++i) {
    CAPTURE(tensors[i].name);
    std::vector<FixtureTensor> fewer = tensors;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    const edge::Status missing = bind_status(fewer, spec);
    CHECK(missing.code() == Code::kTensorMissing);
    CHECK(missing.message().find(tensors[i].name) != std::string::npos);
  }
  std::vector<FixtureTensor> wrong = tensors;
  named(wrong, "layers.0.attn_q_norm").n_cols = 32;
  CHECK(bind_status(wrong, spec).code() == Code::kTensorShape);
  wrong = tensors;
  named(wrong, "position_embd").n_rows = 63;
  CHECK(bind_status(wrong, spec).code() == Code::kTensorShape);
  // A plain model has no place for any of it.
  std::vector<FixtureTensor> more = make_tensors(make_spec(true), Format::kE4_16, Act::kA8);
  more.push_back({"layers.0.attn_q_bias", "attn_q_bias", Format::kF32, 1, 32, Act::kA8});
  CHECK(bind_status(more, make_spec(true)).code() == Code::kTensorUnexpected);
}
