// Weights in the formats of a model file: encoded, decoded, and searched for. Part of engine.h,
// whose rules hold here, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace edgellm {

// Weights. Row-major f32 [n_rows][n_cols]; importance is empty or [n_cols] and >= 0.
std::vector<std::byte> encode_tensor(std::string_view format, std::span<const float> weights,
                                     int64_t n_rows, int64_t n_cols,
                                     std::span<const float> importance = {}, int n_threads = 0);
// Rows [row0, row0 + n) as f32 [n][n_cols] of a tensor whose stored bytes are `data`.
std::vector<float> decode_rows(std::string_view format, std::span<const std::byte> data,
                               int64_t n_rows, int64_t n_cols, int64_t row0, int64_t n);

// GPTQ's search in one block of columns of a matrix (Frantar et al. 2022; docs/COMPRESSION.md), all
// arrays row-major and finite, n_cols a multiple of the format's group and at most 1024, d_row > 0.
// A weight becomes d_row * scale * level; docs/FORMAT.md gives the scale of a scale byte.
struct GptqCodes {
  std::vector<uint8_t> scale_bytes;  // [n_rows, n_cols / group]
  std::vector<int8_t> levels;        // [n_rows, n_cols]
};
// target [n_rows, n_cols]; upper [n_cols, n_cols], the block's part of U with H^-1 = U^T U. moved
// [n_rows, n_cols] is written: columns after the block change by -moved x U[block, after].
GptqCodes gptq_sweep(std::string_view format, int64_t n_rows, int64_t n_cols,
                     std::span<const float> target, std::span<const float> upper,
                     std::span<const float> d_row, std::span<float> moved, int n_threads = 1);
struct GptqDescent {
  std::span<const float> weights;         // [n_rows, n_cols]
  std::span<const float> errors;          // [n_rows, n_cols], weights - quantized
  std::span<const float> pulls;           // [n_rows, n_cols], errors of all columns x H[:, block]
  std::span<const float> hessian;         // [n_cols, n_cols], H[block, block]
  std::span<const float> group_uppers;    // [n_groups, group, group], of H_gg
  std::span<const float> group_inverses;  // [n_groups, group, group], H_gg^-1
};
// One pass of block coordinate descent over the groups; codes in, codes out.
GptqCodes gptq_descend(std::string_view format, int64_t n_rows, int64_t n_cols,
                       const GptqDescent& descent, std::span<const float> d_row, GptqCodes codes,
                       int n_threads = 1);

}  // namespace edgellm
