// A complete two-layer model with random E8_32 weights, written to a temporary file for one test.
#pragma once

#include <array>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "../model/edge_fixture.h"
#include "doctest/doctest.h"
#include "kernels/encode.h"

namespace edge::test {

constexpr int kTinyVocab = 96;
constexpr int kTinyContext = 256;

inline std::vector<FixtureTensor> tiny_tensors() {
  constexpr int kModel = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kFfn = 96;
  const auto matrix = [](const std::string& prefix, const std::string& role, int rows, int cols) {
    return FixtureTensor{prefix + role, role, Format::kE8_32, rows, cols, Act::kA8};
  };
  const auto vector = [](const std::string& prefix, const std::string& role, int n) {
    return FixtureTensor{prefix + role, role, Format::kF32, 1, n, Act::kA8};
  };
  std::vector<FixtureTensor> tensors = {matrix("", "token_embd", kTinyVocab, kModel),
                                        vector("", "rope_inv_freq", kHeadDim / 2)};
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    tensors.push_back(vector(layer, "attn_norm", kModel));
    tensors.push_back(matrix(layer, "attn_q", kHeads * kHeadDim, kModel));
    tensors.push_back(matrix(layer, "attn_k", kKvHeads * kHeadDim, kModel));
    tensors.push_back(matrix(layer, "attn_v", kKvHeads * kHeadDim, kModel));
    tensors.push_back(matrix(layer, "attn_o", kModel, kHeads * kHeadDim));
    tensors.push_back(vector(layer, "ffn_norm", kModel));
    tensors.push_back(matrix(layer, "ffn_gate", kFfn, kModel));
    tensors.push_back(matrix(layer, "ffn_up", kFfn, kModel));
    tensors.push_back(matrix(layer, "ffn_down", kModel, kFfn));
  }
  tensors.push_back(vector("", "output_norm", kModel));
  return tensors;
}

// windows: of the two layers, 0: none.
inline std::string tiny_spec(int n_ctx = kTinyContext, std::array<int, 2> windows = {0, 0}) {
  const auto layer = [](int window) {
    return R"({"n_heads":4,"n_kv_heads":2,"head_dim":16,"d_ffn":96)" +
           (window > 0 ? R"(,"window":)" + std::to_string(window) : std::string()) + "}";
  };
  return R"({"arch":"llama","n_vocab":96,"d_model":64,"n_ctx_train":)" + std::to_string(n_ctx) +
         R"(,"norm_eps":1e-05,"tied_head":true,"n_rope":16,"rope_factor":1.0,)"
         R"("bos_id":1,"eos_ids":[2],"layers":[)" +
         layer(windows[0]) + "," + layer(windows[1]) + "]}";
}

inline void fill_tiny(const FixtureTensor& tensor, std::span<std::byte> out) {
  std::mt19937 random(static_cast<uint32_t>(std::hash<std::string>()(tensor.name)));
  const auto uniform = [&] { return static_cast<float>(random() % 20001) * 1e-4f - 1.0f; };
  const int64_t n = tensor.n_rows * tensor.n_cols;
  std::vector<float> values(static_cast<size_t>(n));
  const bool is_norm = tensor.format == Format::kF32;
  for (float& value : values) value = is_norm ? 1 + 0.1f * uniform() : 0.3f * uniform();
  if (tensor.role == "rope_inv_freq") {
    float frequency = 1;
    for (float& value : values) value = frequency /= 3;
  }
  if (is_norm) {
    std::memcpy(out.data(), values.data(), out.size());
  } else {
    REQUIRE(
        encode_tensor(tensor.format, values.data(), tensor.n_rows, tensor.n_cols, nullptr, out, 1)
            .is_ok());
  }
}

// The file, removed at the end of the scope.
class TinyFile {
 public:
  explicit TinyFile(const std::string& spec = tiny_spec()) {
    static int n_files = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("edge_tiny_" + std::to_string(getpid()) + "_" + std::to_string(n_files++)))
                .string();
    const std::string bytes = edge_bytes(tiny_tensors(), spec, fill_tiny);
    REQUIRE(atomic_write_file(path_, std::as_bytes(std::span(bytes))).is_ok());
  }
  ~TinyFile() { std::filesystem::remove(path_); }
  TinyFile(const TinyFile&) = delete;
  TinyFile& operator=(const TinyFile&) = delete;
  const std::string& path() const { return path_; }

  void flip_bit(uint64_t offset) const {
    std::FILE* file = std::fopen(path_.c_str(), "r+b");
    REQUIRE(file != nullptr);
    std::fseek(file, static_cast<long>(offset), SEEK_SET);
    const int byte = std::fgetc(file);
    std::fseek(file, static_cast<long>(offset), SEEK_SET);
    std::fputc(byte ^ 1, file);
    std::fclose(file);
  }

 private:
  std::string path_;
};

}  // namespace edge::test
