#include "model/spec.h"

#include <doctest/doctest.h>

#include <string>

namespace {

using edge::Code;
using edge::ModelSpec;

const std::string kGood =
    R"({"arch":"llama","n_vocab":512,"d_model":64,"n_ctx_train":256,"norm_eps":1e-05,)"
    R"("tied_head":true,"n_rope":8,"rope_factor":1.0,"bos_id":1,"eos_ids":[1,2],)"
    R"("layers":[{"n_heads":8,"n_kv_heads":4,"head_dim":8,"d_ffn":172},)"
    R"({"n_heads":6,"n_kv_heads":2,"head_dim":16,"d_ffn":1}]})";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

edge::Status parse_status(const std::string& text) { return ModelSpec::from_json(text).status(); }

}  // namespace

TEST_CASE("a spec with layers that differ is read field by field") {
  auto spec = ModelSpec::from_json(kGood);
  REQUIRE(spec.is_ok());
  const ModelSpec& s = spec.value();
  CHECK(s.arch == "llama");
  CHECK(s.n_vocab == 512);
  CHECK(s.d_model == 64);
  CHECK(s.n_ctx_train == 256);
  CHECK(s.norm_eps == 1e-5f);
  CHECK(s.tied_head);
  CHECK(s.n_rope == 8);
  CHECK(s.rope_factor == 1.0f);
  CHECK(s.bos_id == 1);
  CHECK(s.eos_ids == std::vector<int32_t>{1, 2});
  REQUIRE(s.layers.size() == 2);
  CHECK(s.layers[0].d_ffn == 172);
  CHECK(s.layers[1].n_heads == 6);
  CHECK(s.layers[1].n_kv_heads == 2);
  CHECK(s.layers[1].head_dim == 16);
}

TEST_CASE("the KV layout packs the layers of a page without gaps") {
  auto spec = ModelSpec::from_json(kGood);
  REQUIRE(spec.is_ok());
  const edge::KvLayout kv = spec.value().kv_layout(edge::KvFormat::kF16);
  REQUIRE(kv.layers.size() == 2);
  const size_t first_bytes = size_t{2} * 16 * 8 * 4 * 2;  // k and v, tokens, dim, heads, f16
  const size_t second_bytes = size_t{2} * 16 * 16 * 2 * 2;
  CHECK(kv.layers[0].offset_bytes == 0);
  CHECK(kv.layers[1].offset_bytes == first_bytes);
  REQUIRE(kv.groups.size() == 1);
  CHECK(kv.groups[0].window == 0);
  CHECK(kv.groups[0].page_bytes == first_bytes + second_bytes);
  CHECK(kv.groups[0].bytes_of(0) == kv.groups[0].page_bytes);

  const edge::KvLayout small = spec.value().kv_layout(edge::KvFormat::kK6V4);
  // Keys of 6 bits, values of 4 and two scales a token; F16 in the first pages.
  CHECK(small.layers[1].offset_bytes == size_t{16} * 4 * (12 + 16 + 4));
  CHECK(small.groups[0].page_bytes == size_t{16} * (4 + 2) * (12 + 16 + 4));
  CHECK(small.layers[1].first_offset_bytes == first_bytes);
  CHECK(small.groups[0].bytes_of(0) == first_bytes + second_bytes);
}

TEST_CASE("layers with the same window share pages; a window as wide as the context is none") {
  const std::string head = R"({"n_heads":2,"n_kv_heads":1,"d_ffn":1,"head_dim":)";
  const std::string layers = head + R"(8,"window":100},)" + head + R"(16},)" + head +
                             R"(12,"window":20},)" + head + R"(32,"window":100},)" + head +
                             R"(10,"window":256}]})";
  const std::string text = kGood.substr(0, kGood.find('[', kGood.find("layers")) + 1) + layers;
  auto spec = ModelSpec::from_json(text);
  REQUIRE_MESSAGE(spec.is_ok(), spec.status().message());
  const edge::KvLayout kv = spec.value().kv_layout(edge::KvFormat::kF16);
  const size_t unit = size_t{2} * 16 * 2;  // of one dimension
  REQUIRE(kv.groups.size() == 3);
  const int windows[] = {0, 20, 100};
  const size_t dims[] = {16 + 10, 12, 8 + 32};
  for (size_t i = 0; i < 3; ++i) {
    CHECK(kv.groups[i].window == windows[i]);
    CHECK(kv.groups[i].page_bytes == dims[i] * unit);
  }
  const int groups[] = {2, 0, 1, 2, 0};
  const size_t offsets[] = {0, 0, 0, 8, 16};
  for (size_t l = 0; l < 5; ++l) {
    CHECK(kv.layers[l].group == groups[l]);
    CHECK(kv.layers[l].offset_bytes == offsets[l] * unit);
  }
}

TEST_CASE("short convolutions keep rows of states in a group of their own, and have no heads") {
  const std::string conv = R"({"n_heads":0,"n_kv_heads":0,"head_dim":0,"d_ffn":1,)"
                           R"("mixer":"short_conv","conv_kernel":3)";
  const auto with = [&](const std::string& layer) {
    const size_t begin = kGood.find('[', kGood.find("layers")) + 1;
    return kGood.substr(0, begin) + layer + "}," + kGood.substr(begin);
  };
  auto spec = ModelSpec::from_json(with(conv + "}," + conv));
  REQUIRE_MESSAGE(spec.is_ok(), spec.status().message());
  const edge::KvLayout kv = spec.value().kv_layout(edge::KvFormat::kK6V4);
  REQUIRE(kv.groups.size() == 2);
  CHECK_FALSE(kv.groups[0].is_state);
  CHECK(kv.groups[1].is_state);
  CHECK(kv.groups[1].window == 3);
  CHECK(kv.groups[1].page_bytes == size_t{2} * 16 * 64 * sizeof(float));
  CHECK(kv.groups[1].bytes_of(0) == kv.groups[1].page_bytes);
  CHECK(kv.layers[1].state_cols == 64);
  CHECK(kv.layers[1].offset_bytes == size_t{16} * 64 * sizeof(float));
  CHECK_FALSE(kv.layers[1].has_own_first_pages());
  CHECK(kv.layers[2].state_cols == 0);
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string layer = conv;
    const edge::Status status =
        parse_status(with(layer.replace(layer.find(from), from.size(), to)));
    CAPTURE(status.message());
    CHECK(status.code() == Code::kSpecInvalid);
    return status.message();
  };
  CHECK(refused("\"n_heads\":0", "\"n_heads\":1").find("'n_heads' is 1") != std::string::npos);
  CHECK(refused("el\":3", "el\":1").find("'conv_kernel' is 1") != std::string::npos);
  CHECK(refused("el\":3", "el\":17").find("allowed is 2 to 16") != std::string::npos);
  CHECK(refused("el\":3", "el\":3,\"window\":4").find("describe attention") != std::string::npos);
  CHECK(refused("short_conv", "mamba2").find("allowed is gqa, short_conv") != std::string::npos);
  CHECK(refused("short_conv", "gqa").find("'conv_kernel' is 3") != std::string::npos);
}

TEST_CASE("every value outside its range is refused by name, value and range") {
  const struct {
    const char* from;
    const char* to;
    const char* said;
  } rows[] = {
      {"\"n_vocab\":512", "\"n_vocab\":0", "'n_vocab' is 0, allowed is 1 to 16777216"},
      {"\"n_vocab\":512", "\"n_vocab\":16777217", "'n_vocab' is 16777217"},
      {"\"d_model\":64", "\"d_model\":65537", "'d_model' is 65537, allowed is 1 to 65536"},
      {"\"n_ctx_train\":256", "\"n_ctx_train\":-1", "'n_ctx_train' is -1"},
      {"\"norm_eps\":1e-05", "\"norm_eps\":0", "'norm_eps'"},
      {"\"norm_eps\":1e-05", "\"norm_eps\":-1e-05", "'norm_eps'"},
      {"\"rope_factor\":1.0", "\"rope_factor\":1e31", "'rope_factor'"},
      {"\"n_rope\":8", "\"n_rope\":7", "'n_rope' is 7, it must be even"},
      {"\"n_rope\":8", "\"n_rope\":-2", "'n_rope' is -2"},
      {"\"n_rope\":8", "\"n_rope\":10", "'head_dim' is 8, it must be at least n_rope (10)"},
      {"\"bos_id\":1", "\"bos_id\":512", "'bos_id' is 512, allowed is -1 to 511"},
      {"\"bos_id\":1", "\"bos_id\":-2", "'bos_id' is -2"},
      {"\"eos_ids\":[1,2]", "\"eos_ids\":[1,512]", "'eos_ids[1]' is 512, allowed is 0 to 511"},
      {"\"eos_ids\":[1,2]", "\"eos_ids\":[-1]", "'eos_ids[0]' is -1"},
      {"\"n_heads\":8", "\"n_heads\":1025", "layers[0]: 'n_heads' is 1025"},
      {"\"n_kv_heads\":4", "\"n_kv_heads\":3", "'n_kv_heads' is 3, it must divide n_heads (8)"},
      {"\"n_kv_heads\":4", "\"n_kv_heads\":9", "'n_kv_heads' is 9"},
      {"\"n_kv_heads\":4", "\"n_kv_heads\":0", "'n_kv_heads' is 0"},
      {"\"head_dim\":8", "\"head_dim\":9", "'head_dim' is 9, it must be even"},
      {"\"head_dim\":8", "\"head_dim\":1026", "'head_dim' is 1026"},
      {"\"d_ffn\":172", "\"d_ffn\":0", "'d_ffn' is 0"},
      {"\"d_ffn\":1}", "\"d_ffn\":1048577}", "layers[1]: 'd_ffn' is 1048577"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.to);
    const edge::Status status = parse_status(replaced(row.from, row.to));
    CHECK(status.code() == Code::kSpecInvalid);
    CAPTURE(status.message());
    CHECK(status.message().find(row.said) != std::string::npos);
  }
}

// kGood with more keys in the spec and in its first layer.
std::string with(const std::string& in_spec, const std::string& in_layer,
                 const std::string& d_ffn = "172") {
  std::string text = replaced("\"d_ffn\":172", "\"d_ffn\":" + d_ffn + in_layer);
  return text.replace(text.find("\"layers\""), 0, in_spec);
}

const std::string kExperts = R"(,"n_experts":8,"n_experts_used":2,"d_expert":48)";

TEST_CASE("what a text leaves out is that of a plain model") {
  auto spec = ModelSpec::from_json(kGood);
  REQUIRE(spec.is_ok());
  const ModelSpec& s = spec.value();
  CHECK(s.norm == edge::NormKind::kRms);
  CHECK(s.embed_scale == 1.0f);
  CHECK(s.final_softcap == 0.0f);
  CHECK(s.n_positions == 0);
  CHECK(s.rope_local_factor == 1.0f);
  CHECK(s.n_ctx_original == 0);
  CHECK_FALSE(s.headless);
  const edge::LayerSpec& l = s.layers[1];
  CHECK(l.rope == edge::RopeUse::kFull);
  CHECK(l.window == 0);
  CHECK(l.pre_norm);
  CHECK_FALSE(l.post_norm);
  CHECK_FALSE(l.parallel);
  CHECK(l.qk_norm == edge::QkNorm::kNone);
  CHECK(l.ffn_act == edge::FfnAct::kSilu);
  CHECK(l.ffn_gated);
  CHECK(l.n_experts == 0);
}

TEST_CASE("every optional key is read") {
  auto spec = ModelSpec::from_json(
      with(R"("norm":"layer","embed_scale":45.25,"final_softcap":30,"n_positions":1024,)"
           R"("rope_local_factor":0.5,"n_ctx_original":4096,)",
           R"(,"rope":"local","window":512,"pre_norm":true,"post_norm":true,"parallel":false,)"
           R"("qkv_bias":true,"o_bias":true,"ffn_bias":true,"qk_norm":"full","attn_scale":0.0625,)"
           R"("attn_softcap":50.0,"ffn_act":"gelu_tanh","ffn_gated":false)"));
  REQUIRE_MESSAGE(spec.is_ok(), spec.status().message());
  const ModelSpec& s = spec.value();
  CHECK(s.norm == edge::NormKind::kLayer);
  CHECK(s.embed_scale == 45.25f);
  CHECK(s.final_softcap == 30.0f);
  CHECK(s.n_positions == 1024);
  CHECK(s.rope_local_factor == 0.5f);
  CHECK(s.n_ctx_original == 4096);
  const edge::LayerSpec& l = s.layers[0];
  CHECK(l.rope == edge::RopeUse::kLocal);
  CHECK(l.window == 512);
  CHECK(l.post_norm);
  CHECK(l.qkv_bias);
  CHECK(l.o_bias);
  CHECK(l.ffn_bias);
  CHECK(l.qk_norm == edge::QkNorm::kFull);
  CHECK(l.attn_scale == 0.0625f);
  CHECK(l.attn_softcap == 50.0f);
  CHECK(l.ffn_act == edge::FfnAct::kGeluTanh);
  CHECK_FALSE(l.ffn_gated);

  auto moe = ModelSpec::from_json(
      with("", kExperts + R"(,"d_shared":96,"shared_gate":true,"norm_topk":true)", "0"));
  REQUIRE_MESSAGE(moe.is_ok(), moe.status().message());
  const edge::LayerSpec& e = moe.value().layers[0];
  CHECK(e.d_ffn == 0);
  CHECK(e.n_experts == 8);
  CHECK(e.n_experts_used == 2);
  CHECK(e.d_expert == 48);
  CHECK(e.d_shared == 96);
  CHECK(e.shared_gate);
  CHECK(e.norm_topk);
}

TEST_CASE("a damaged spec with all its keys is read or refused with a reason") {
  const std::string text =
      with(R"("norm":"layer","embed_scale":45.25,"final_softcap":30,"n_positions":1024,)"
           R"("rope_local_factor":0.5,"n_ctx_original":4096,)",
           kExperts + R"(,"d_shared":96,"shared_gate":true,"norm_topk":true,"rope":"local",)"
                      R"("window":512,"post_norm":true,"qkv_bias":true,"o_bias":true,)"
                      R"("qk_norm":"full","attn_scale":0.0625,"attn_softcap":50.0,)"
                      R"("ffn_act":"gelu_tanh")",
           "0");
  REQUIRE(ModelSpec::from_json(text).is_ok());
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char byte : {'0', '9', '-', 'e', '"', ',', '}', '\\'}) {
      std::string damaged = text;
      damaged[at] = byte;
      const edge::Status status = parse_status(damaged);
      if (status.is_ok()) continue;
      const std::string_view kind = edge::code_class(status.code());
      CHECK(kind == "FormatError");
      CHECK_FALSE(status.message().empty());
    }
  }
}

TEST_CASE("optional values outside their range or at odds with others are refused by name") {
  const struct {
    std::string in_spec, in_layer, d_ffn;
    const char* said;
  } rows[] = {
      {R"("norm":"batch",)", "", "172", "'norm' is 'batch', allowed is rms, layer"},
      {R"("embed_scale":0,)", "", "172", "'embed_scale'"},
      {R"("final_softcap":-1,)", "", "172", "'final_softcap'"},
      {R"("final_softcap":1e-31,)", "", "172", "'final_softcap'"},
      {R"("n_positions":16777217,)", "", "172", "'n_positions' is 16777217"},
      {R"("n_positions":255,)", "", "172", "'n_ctx_train' is 256, it must be at most n_positions"},
      {R"("rope_local_factor":1e31,)", "", "172", "'rope_local_factor'"},
      {R"("n_ctx_original":-1,)", "", "172", "'n_ctx_original' is -1"},
      {R"("headless":true,)", "", "172", "'headless' is true, which excludes tied_head"},
      {"", R"(,"rope":"yarn")", "172", "layers[0]: 'rope' is 'yarn', allowed is full, local, none"},
      {"", R"(,"window":-1)", "172", "'window' is -1, allowed is 0 to 16777216"},
      {"", R"(,"parallel":true,"post_norm":true)", "172",
       "'parallel' excludes post_norm and needs pre_norm"},
      {"", R"(,"parallel":true,"pre_norm":false)", "172", "needs pre_norm"},
      {"", R"(,"qk_norm":"layer")", "172", "'qk_norm' is 'layer'"},
      {"", R"(,"attn_scale":-0.5)", "172", "'attn_scale'"},
      {"", R"(,"attn_softcap":1e31)", "172", "'attn_softcap'"},
      {"", R"(,"attn_softcap":30,"balance_keys":true)", "172",
       "'balance_keys' is true, which excludes an attn_softcap"},
      {"", R"(,"ffn_act":"swish")", "172", "'ffn_act' is 'swish'"},
      {"", R"(,"n_experts_used":2)", "172", "'n_experts' is 0, but other keys describe experts"},
      {"", R"(,"norm_topk":true)", "172", "'n_experts' is 0, but other keys describe experts"},
      {"", R"(,"n_experts":1025,"n_experts_used":2,"d_expert":48)", "0", "'n_experts' is 1025"},
      {"", R"(,"n_experts":8,"n_experts_used":9,"d_expert":48)", "0", "'n_experts_used' is 9"},
      {"", R"(,"n_experts":8,"n_experts_used":2)", "0", "'d_expert' is 0"},
      {"", kExperts, "172", "'d_ffn' is 172, allowed is 0 to 0"},
      {"", kExperts + R"(,"ffn_bias":true)", "0", "'ffn_bias' is true"},
      {"", kExperts + R"(,"ffn_gated":false)", "0", "'ffn_gated' is false"},
      {"", kExperts + R"(,"shared_gate":true)", "0", "'shared_gate' is true"},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.said));
    const edge::Status status = parse_status(with(row.in_spec, row.in_layer, row.d_ffn));
    CHECK(status.code() == Code::kSpecInvalid);
    CAPTURE(status.message());
    CHECK(status.message().find(row.said) != std::string::npos);
  }
  CHECK(parse_status(with(R"("norm":1,)", "")).code() == Code::kJsonType);
  CHECK(parse_status(with("", R"(,"window":1.5)")).code() == Code::kJsonType);
  CHECK(parse_status(with("", R"(,"qkv_bias":1)")).code() == Code::kJsonType);
  CHECK(parse_status(with("", R"(,"attn_scale":"1")")).code() == Code::kJsonType);
}

TEST_CASE("without rotation nothing may ask for a rotary table") {
  const auto unrotated = [](const std::string& in_spec, const std::string& in_layer) {
    const std::string text = with(in_spec, in_layer);
    return ModelSpec::from_json(
        std::string(text).replace(text.find("\"n_rope\":8"), 10, "\"n_rope\":0"));
  };
  CHECK(unrotated("", R"(,"rope":"none")").is_ok());
  CHECK(unrotated("", "").is_ok());
  CHECK(unrotated("", R"(,"rope":"local")").status().code() == Code::kSpecInvalid);
  CHECK(unrotated(R"("n_ctx_original":64,)", "").status().code() == Code::kSpecInvalid);
}

TEST_CASE("too many layers and end tokens are refused before they are stored") {
  const std::string layer = R"({"n_heads":8,"n_kv_heads":4,"head_dim":8,"d_ffn":172},)";
  std::string layers;
  for (int i = 0; i < 1023; ++i) layers += layer;
  CHECK(parse_status(replaced("\"layers\":[", "\"layers\":[" + layers)).code() ==
        Code::kSpecInvalid);
  std::string ids = "0";
  for (int i = 0; i < 256; ++i) ids += ",0";
  CHECK(parse_status(replaced("[1,2]", "[" + ids + "]")).code() == Code::kSpecInvalid);
  CHECK(parse_status(replaced("\"arch\":\"llama", "\"arch\":\"" + std::string(65, 'x'))).code() ==
        Code::kSpecInvalid);
}

TEST_CASE("a spec without layers is refused") {
  const size_t at = kGood.find("\"layers\":[");
  CHECK(parse_status(kGood.substr(0, at) + "\"layers\":[]}").code() == Code::kSpecInvalid);
}

TEST_CASE("unknown, missing and mistyped keys have codes of their own") {
  CHECK(parse_status(replaced("\"arch\"", "\"sinks\":1,\"arch\"")).code() == Code::kJsonUnknownKey);
  CHECK(parse_status(replaced("\"d_ffn\":1}", "\"d_ffn\":1,\"sinks\":3}")).code() ==
        Code::kJsonUnknownKey);
  CHECK(parse_status(replaced("\"bos_id\":1,", "")).code() == Code::kJsonMissingKey);
  CHECK(parse_status(replaced("\"d_model\":64", "\"d_model\":\"64\"")).code() == Code::kJsonType);
  CHECK(parse_status(replaced("\"d_model\":64", "\"d_model\":64.5")).code() == Code::kJsonType);
  CHECK(parse_status(replaced("[1,2]", "[1.5]")).code() == Code::kJsonType);
  CHECK(parse_status(replaced("\"layers\":[{", "\"layers\":[3,{")).code() == Code::kJsonType);
  CHECK(parse_status("[]").code() == Code::kJsonType);
  CHECK(parse_status(kGood + "x").code() == Code::kJsonSyntax);
}

TEST_CASE("a truncated spec is an error at every length") {
  for (size_t n = 0; n < kGood.size(); ++n) {
    CAPTURE(n);
    CHECK_FALSE(parse_status(kGood.substr(0, n)).is_ok());
  }
}
