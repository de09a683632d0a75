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
  const edge::KvLayout kv = spec.value().kv_layout();
  REQUIRE(kv.layers.size() == 2);
  const size_t first_bytes = size_t{2} * 32 * 8 * 4 * 2;  // k and v, tokens, dim, heads, f16
  const size_t second_bytes = size_t{2} * 32 * 16 * 2 * 2;
  CHECK(kv.layers[0].offset_bytes == 0);
  CHECK(kv.layers[1].offset_bytes == first_bytes);
  CHECK(kv.page_bytes == first_bytes + second_bytes);
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
      {"\"n_rope\":8", "\"n_rope\":0", "'n_rope' is 0"},
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
  CHECK(parse_status(replaced("\"arch\"", "\"window\":1,\"arch\"")).code() ==
        Code::kJsonUnknownKey);
  CHECK(parse_status(replaced("\"d_ffn\":1}", "\"d_ffn\":1,\"window\":3}")).code() ==
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
