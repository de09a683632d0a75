#include "c_api_engine.h"

#include "../model/edge_fixture.h"
#include "edgellm/c_api.h"
#include "edgellm/engine.h"
#include "kernels/encode.h"
#include "model/spec.h"

static_assert(EDGELLM_ABI_VERSION == EDGE_CMAKE_ABI_VERSION, "cmake/c_library.cmake has another");

int engine_greedy_ids(const char* path, const int32_t* prompt, size_t n_prompt, int32_t* ids,
                      size_t n_ids) {
  try {
    const edgellm::Model model = edgellm::Model::load(path, {.n_threads = 1});
    edgellm::Session session(model);
    session.append({prompt, n_prompt});
    for (size_t i = 0; i < n_ids; ++i) {
      while (!session.run()) {
      }
      ids[i] = session.sample({}).id;
      session.append({&ids[i], 1});
    }
    return 0;
  } catch (const edgellm::Error&) {
    return 1;
  }
}

int engine_write_adapter(const char* path, const char* adapter_path) {
  const auto file = edge::EdgeFile::open(path);
  if (!file.is_ok()) return 1;
  const auto spec = edge::ModelSpec::from_json(file.value()->metadata("edgellm.spec"));
  if (!spec.is_ok()) return 1;
  const edge::LayerSpec& layer = spec.value().layers.front();
  const int64_t n_rows = int64_t{layer.n_heads} * layer.head_dim, n_cols = spec.value().d_model;
  const auto matrix = [](const char* part, int64_t rows, int64_t cols) {
    return edge::test::FixtureTensor{std::string("layers.0.attn_q.") + part,
                                     part,
                                     edge::Format::kF16,
                                     rows,
                                     cols,
                                     edge::Act::kF32};
  };
  const auto fill = [](const edge::test::FixtureTensor& tensor, std::span<std::byte> out) {
    std::vector<float> values(static_cast<size_t>(tensor.n_rows * tensor.n_cols));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i * 7 % 11) * 0.1f - 0.5f;
    }
    const edge::Status status = edge::encode_tensor(tensor.format, values.data(), tensor.n_rows,
                                                    tensor.n_cols, nullptr, out, 1);
    if (!status.is_ok()) std::abort();
  };
  const std::string bytes =
      edge::test::edge_bytes({matrix("lora_a", 2, n_cols), matrix("lora_b", n_rows, 2)},
                             R"({"kind":"adapter","arch":")" + spec.value().arch +
                                 R"(","d_model":)" + std::to_string(n_cols) + R"(,"n_layers":)" +
                                 std::to_string(spec.value().layers.size()) + "}",
                             fill);
  return edge::atomic_write_file(adapter_path, std::as_bytes(std::span(bytes))).is_ok() ? 0 : 1;
}

void engine_remove_all(const char* path) { std::filesystem::remove_all(path); }
