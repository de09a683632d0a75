// Layers with experts: their tensors are bound, padded to whole strips per expert, or refused.
#include <doctest/doctest.h>

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

constexpr int kModel = 20;

// A layer with experts and a shared one, then a plain one.
ModelSpec make_spec() {
  ModelSpec spec;
  spec.n_vocab = 37;
  spec.d_model = kModel;
  spec.n_ctx_train = 64;
  spec.norm_eps = 1e-5f;
  spec.tied_head = true;
  spec.n_rope = 8;
  edge::LayerSpec layer{2, 2, 8, 0};
  layer.n_experts = 5;
  layer.n_experts_used = 2;
  layer.d_expert = 33;
  layer.d_shared = 17;
  layer.shared_gate = true;
  spec.layers = {layer, {2, 2, 8, 44}};
  return spec;
}

std::vector<FixtureTensor> make_tensors() {
  std::vector<FixtureTensor> out;
  const auto matrix = [&](const std::string& prefix, const std::string& role, int64_t n_rows,
                          int64_t n_cols, Format format = Format::kE4_16) {
    const Act act = format == Format::kF16 ? Act::kF32 : Act::kA8;
    out.push_back({prefix + role, role, format, n_rows, n_cols, act});
  };
  const auto vector = [&](const std::string& prefix, const std::string& role, int64_t n) {
    out.push_back({prefix + role, role, Format::kF32, 1, n, Act::kA8});
  };
  matrix("", "token_embd", 37, kModel);
  vector("", "rope_inv_freq", 4);
  for (const std::string prefix : {"layers.0.", "layers.1."}) {
    vector(prefix, "attn_norm", kModel);
    for (const char* role : {"attn_q", "attn_k", "attn_v"}) matrix(prefix, role, 16, kModel);
    matrix(prefix, "attn_o", kModel, 16);
    vector(prefix, "ffn_norm", kModel);
  }
  matrix("layers.0.", "ffn_router", 5, kModel, Format::kF16);
  matrix("layers.0.", "ffn_gate_exps", 5 * 48, kModel);
  matrix("layers.0.", "ffn_up_exps", 5 * 48, kModel);
  matrix("layers.0.", "ffn_down_exps", 5 * 32, 33);
  matrix("layers.0.", "ffn_gate_shexp", 17, kModel);
  matrix("layers.0.", "ffn_up_shexp", 17, kModel);
  matrix("layers.0.", "ffn_down_shexp", kModel, 17);
  matrix("layers.0.", "ffn_gate_inp_shexp", 1, kModel, Format::kF16);
  matrix("layers.1.", "ffn_gate", 44, kModel);
  matrix("layers.1.", "ffn_up", 44, kModel);
  matrix("layers.1.", "ffn_down", kModel, 44);
  vector("", "output_norm", kModel);
  return out;
}

const char* const kExpertRoles[] = {"ffn_router",     "ffn_gate_exps",     "ffn_up_exps",
                                    "ffn_down_exps",  "ffn_gate_shexp",    "ffn_up_shexp",
                                    "ffn_down_shexp", "ffn_gate_inp_shexp"};

}  // namespace

TEST_CASE("the tensors of experts are bound, and only where the spec has them") {
  auto file = edge::test::open_fixture(make_tensors(), "{}");
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  auto bound = Weights::bind(*file.value(), make_spec());
  REQUIRE_MESSAGE(bound.is_ok(), bound.status().message());
  const edge::LayerWeights& experts = bound.value().layers[0];
  CHECK(experts.ffn_down_exps.data == file.value()->find("layers.0.ffn_down_exps")->tensor.data);
  CHECK(experts.ffn_gate_inp_shexp.is_valid());
  CHECK_FALSE(experts.ffn_gate.is_valid());
  CHECK(bound.value().layers[1].ffn_gate.is_valid());
  CHECK_FALSE(bound.value().layers[1].ffn_router.is_valid());

  ModelSpec without_gate = make_spec();
  without_gate.layers[0].shared_gate = false;
  CHECK(bind_status(make_tensors(), without_gate).code() == Code::kTensorUnexpected);
}

TEST_CASE("each missing tensor of an expert layer is named") {
  for (const char* role : kExpertRoles) {
    CAPTURE(role);
    auto tensors = make_tensors();
    std::erase_if(tensors, [&](const FixtureTensor& t) { return t.role == role; });
    const edge::Status status = bind_status(tensors, make_spec());
    CHECK(status.code() == Code::kTensorMissing);
    CHECK(status.message().find(std::string("'layers.0.") + role + "'") != std::string::npos);
  }
}

TEST_CASE("experts that are not padded to whole strips are refused, as is any other shape") {
  for (const char* role : kExpertRoles) {
    CAPTURE(role);
    for (const int by : {-1, 1}) {
      auto tensors = make_tensors();
      named(tensors, "layers.0." + std::string(role)).n_cols += by;
      CHECK(bind_status(tensors, make_spec()).code() == Code::kTensorShape);
    }
  }
  auto tensors = make_tensors();
  named(tensors, "layers.0.ffn_gate_exps").n_rows = 5 * 33;
  CHECK(bind_status(tensors, make_spec()).code() == Code::kTensorShape);
  tensors = make_tensors();
  named(tensors, "layers.0.ffn_down_exps").n_rows = 5 * kModel;
  CHECK(bind_status(tensors, make_spec()).code() == Code::kTensorShape);
  tensors = make_tensors();
  named(tensors, "layers.0.ffn_up_exps").n_rows = 6 * 48;
  CHECK(bind_status(tensors, make_spec()).code() == Code::kTensorShape);
}

TEST_CASE("what routes is F16 alone") {
  for (const char* role : {"ffn_router", "ffn_gate_inp_shexp"}) {
    CAPTURE(role);
    auto tensors = make_tensors();
    named(tensors, "layers.0." + std::string(role)).format = Format::kE8_32;
    named(tensors, "layers.0." + std::string(role)).act = Act::kA8;
    CHECK(bind_status(tensors, make_spec()).code() == Code::kTensorFormat);
  }
}
