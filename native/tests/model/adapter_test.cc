// Adapter files: bound to the model's matrices, or refused by name.
#include "model/adapter.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "edge_fixture.h"

namespace {

using edge::Act;
using edge::Adapter;
using edge::Code;
using edge::Format;
using edge::LoraRole;
using edge::ModelSpec;
using edge::test::FixtureTensor;

const std::string kSpec = R"({"kind":"adapter","arch":"llama","d_model":20,"n_layers":2})";

// A layer with experts, whose attention alone can be changed, then a plain one.
ModelSpec make_spec() {
  ModelSpec spec;
  spec.arch = "llama";
  spec.d_model = 20;
  edge::LayerSpec experts{2, 1, 8, 0};
  experts.n_experts = 4;
  spec.layers = {experts, {2, 1, 8, 44}};
  return spec;
}

std::vector<FixtureTensor> pair(const std::string& matrix, int64_t n_rows, int64_t n_cols,
                                int64_t rank) {
  return {{matrix + ".lora_a", "lora_a", Format::kF16, rank, n_cols, Act::kF32},
          {matrix + ".lora_b", "lora_b", Format::kF16, n_rows, rank, Act::kF32}};
}

std::vector<FixtureTensor> make_tensors() {
  std::vector<FixtureTensor> out = pair("layers.0.attn_v", 8, 20, 3);
  for (const auto& more : {pair("layers.0.attn_o", 20, 16, 3), pair("layers.1.attn_q", 16, 20, 3),
                           pair("layers.1.ffn_down", 20, 44, 37)}) {
    out.insert(out.end(), more.begin(), more.end());
  }
  return out;
}

edge::Status status_of(const std::vector<FixtureTensor>& tensors, const std::string& spec = kSpec) {
  auto file = edge::test::open_fixture(tensors, spec);
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  return Adapter::bind(*file.value(), make_spec()).status();
}

Code code_after(const std::function<void(std::vector<FixtureTensor>&)>& change) {
  std::vector<FixtureTensor> tensors = make_tensors();
  change(tensors);
  return status_of(tensors).code();
}

}  // namespace

TEST_CASE("the pairs of an adapter are bound to the layers and matrices that they change") {
  auto file = edge::test::open_fixture(make_tensors(), kSpec);
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  auto bound = Adapter::bind(*file.value(), make_spec());
  REQUIRE_MESSAGE(bound.is_ok(), bound.status().message());
  const Adapter& adapter = bound.value();
  CHECK(adapter.rank == 37);
  const auto& down = adapter.layers[1][static_cast<size_t>(LoraRole::kFfnDown)];
  CHECK(down.a.data == file.value()->find("layers.1.ffn_down.lora_a")->tensor.data);
  CHECK(down.b.n_rows == 20);
  CHECK_FALSE(adapter.layers[0][static_cast<size_t>(LoraRole::kAttnQ)].is_valid());

  edge::AdapterRows rows;
  std::vector<edge::RowInput> step(6);
  for (const size_t r : {size_t{1}, size_t{2}, size_t{5}}) step[r].adapter = &adapter;
  rows.set(step);
  CHECK(rows.of(0, LoraRole::kAttnQ).empty());
  const edge::LoraSpan found = rows.of(1, LoraRole::kFfnDown);
  REQUIRE(found.size() == 2);
  CHECK((found[0].row0 == 1 && found[0].n_rows == 2 && found[0].a == &down.a));
  CHECK((found[1].row0 == 5 && found[1].n_rows == 1));
}

TEST_CASE("what is wrong in an adapter file has its own code") {
  CHECK(code_after([](auto& t) { t.erase(t.begin()); }) == Code::kTensorMissing);
  CHECK(code_after([](auto& t) { t.pop_back(); }) == Code::kTensorMissing);
  CHECK(code_after([](auto& t) { t[0].role = "lora_b"; }) == Code::kTensorRole);
  CHECK(code_after([](auto& t) { t[0].format = Format::kE4_16; }) == Code::kTensorFormat);
  CHECK(code_after([](auto& t) { t[0].n_rows = 4; }) == Code::kTensorShape);
  CHECK(code_after([](auto& t) { t[0].n_cols = 21; }) == Code::kTensorShape);
  CHECK(code_after([](auto& t) { t[1].n_rows = 9; }) == Code::kTensorShape);
  CHECK(code_after([](auto& t) { t[0].n_rows = t[1].n_cols = 1025; }) == Code::kTensorShape);
  for (const char* name :
       {"layers.2.attn_q.lora_a", "layers.01.attn_q.lora_a", "layers.0.attn_q.lora_c", "output",
        "layers.0.attn_q", "layers.0.attn_norm.lora_a", "layers.0.ffn_up.lora_a",
        "layers.99999999999999999999.attn_q.lora_a", "layers..attn_q.lora_a", "layers.0"}) {
    CAPTURE(name);
    CHECK(code_after([&](auto& t) { t[0].name = name; }) == Code::kTensorUnexpected);
  }
  CHECK(status_of({{"report", "report", Format::kU8, 1, 8}}).code() == Code::kTensorMissing);
}

TEST_CASE("an adapter of another model, and a file that is no adapter, are refused") {
  const auto with = [](const std::string& spec) { return status_of(make_tensors(), spec).code(); };
  CHECK(with(kSpec) == Code::kOk);
  CHECK(with("{}") == Code::kSpecInvalid);
  CHECK(with(R"({"kind":1})") == Code::kSpecInvalid);
  CHECK(with(R"({"kind":"adapter"})") == Code::kJsonMissingKey);
  CHECK(with(R"({"kind":"adapter","arch":"llama","d_model":20,"n_layers":2,"x":1})") ==
        Code::kJsonUnknownKey);
  CHECK(with(R"({"kind":"adapter","arch":"qwen2","d_model":20,"n_layers":2})") ==
        Code::kAdapterMismatch);
  CHECK(with(R"({"kind":"adapter","arch":"llama","d_model":21,"n_layers":2})") ==
        Code::kAdapterMismatch);
  CHECK(with(R"({"kind":"adapter","arch":"llama","d_model":20,"n_layers":3})") ==
        Code::kAdapterMismatch);
  CHECK(edge::is_adapter_spec(kSpec));
  CHECK_FALSE(edge::is_adapter_spec(R"({"arch":"llama"})"));
  CHECK_FALSE(edge::is_adapter_spec("not json"));
}
