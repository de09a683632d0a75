// The driver of the weight encoders: checks the input, shares strips among threads, picks the ISA.
#include "kernels/encode.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "base/fp_env.h"
#include "base/thread_pool.h"
#include "kernels/encode_kernels.h"
#include "kernels/kernels.h"

namespace edge {

namespace {

// The largest magnitude a weight may have. F16: what still rounds to a finite half. The E formats:
// far from any weight, and small enough that no d_row * s * v can overflow. L4_32: what leaves a
// finite f16 scale, 2 * limit / 15, and room for one searched beyond it; K4_32 and L8_32 have more.
float weight_limit(Format format) {
  if (format == Format::kL4_32 || format == Format::kK4_32 || format == Format::kL8_32) {
    return 0x1p18f;
  }
  return format == Format::kF16 ? 65519.996f : 0x1p96f;
}

EncodeStripFn strip_encoder(const EncodeKernels& kernels, Format format) {
  switch (format) {
    case Format::kE2_16:
      return kernels.e2_16;
    case Format::kE3_32:
      return kernels.e3_32;
    case Format::kE4_16:
      return kernels.e4_16;
    case Format::kE4_32:
      return kernels.e4_32;
    case Format::kE6_16:
      return kernels.e6_16;
    case Format::kE8_32:
      return kernels.e8_32;
    case Format::kK4_32:
      return kernels.k4_32;
    case Format::kL4_32:
      return kernels.l4_32;
    case Format::kL8_32:
      return kernels.l8_32;
    case Format::kF16:
      return kernels.f16;
    default:
      return nullptr;
  }
}

// Index of the first of n weights that is NaN or beyond the limit, or -1.
int64_t find_bad_weight(const float* weights, int64_t n, float limit) {
  constexpr int64_t kBlock = 256;  // small enough to look twice, large enough to vectorise
  for (int64_t i0 = 0; i0 < n; i0 += kBlock) {
    const int64_t end = std::min(n, i0 + kBlock);
    int n_good = 0;
    for (int64_t i = i0; i < end; ++i) n_good += std::fabs(weights[i]) <= limit ? 1 : 0;
    if (n_good == end - i0) continue;
    for (int64_t i = i0; i < end; ++i) {
      if (!(std::fabs(weights[i]) <= limit)) return i;
    }
  }
  return -1;
}

// Fills h [n_cols padded to 32] with the importance divided by its largest value. The small floor
// keeps columns that the calibration text never used from being encoded arbitrarily.
Status normalize_importance(const float* importance, int64_t n_cols, float* h) {
  constexpr float kFloor = 1e-6f;
  float largest = 0;
  for (int64_t k = 0; importance != nullptr && k < n_cols; ++k) {
    if (!std::isfinite(importance[k]) || importance[k] < 0) {
      return {Code::kInvalidArgument, "importance of column " + std::to_string(k) +
                                          " is not a finite number >= 0; recalibrate"};
    }
    largest = std::max(largest, importance[k]);
  }
  for (int64_t k = 0; k < n_cols; ++k) {
    h[k] = largest > 0 ? std::max(importance[k] / largest, kFloor) : 1.0f;
  }
  return {};
}

Status bad_weight(Format format, const float* weights, int64_t index, int64_t n_cols) {
  const float weight = weights[index];
  const std::string where = "weight at row " + std::to_string(index / n_cols) + ", column " +
                            std::to_string(index % n_cols);
  if (std::isnan(weight)) return {Code::kNumeric, where + " is NaN; the checkpoint is damaged"};
  return {Code::kNumeric, where + " is " + std::to_string(weight) + ", too large for " +
                              std::string(format_name(format)) +
                              "; the checkpoint is damaged or needs another format"};
}

Status check_arguments(Format format, int64_t n_rows, int64_t n_cols, std::span<std::byte> out) {
  const std::string name(format_name(format));
  if (tile_bytes(format) == 0) {
    return {Code::kInvalidArgument, name + " is not a tiled weight format"};
  }
  const std::string shape = std::to_string(n_rows) + " x " + std::to_string(n_cols);
  if (n_rows < 1 || n_cols < 1) {
    return {Code::kInvalidArgument, "cannot encode a " + shape + " matrix; both must be positive"};
  }
  const auto n_bytes =
      tensor_bytes(format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols));
  if (!n_bytes || *n_bytes != out.size()) {
    return {Code::kInvalidArgument, "the output for " + shape + " in " + name + " must have " +
                                        (n_bytes ? std::to_string(*n_bytes) : "too many") +
                                        " bytes, not " + std::to_string(out.size())};
  }
  if (reinterpret_cast<uintptr_t>(out.data()) % alignof(float) != 0) {
    return {Code::kInvalidArgument, "the output must be aligned to 4 bytes"};
  }
  return {};
}

}  // namespace

Status encode_tensor_with(const EncodeKernels& kernels, Format format, const float* weights,
                          int64_t n_rows, int64_t n_cols, const float* importance,
                          std::span<std::byte> out, int n_threads) {
  EDGE_RETURN_IF_ERROR(check_arguments(format, n_rows, n_cols, out));
  const FpEnvScope fp_env;
  const EncodeStripFn encode = strip_encoder(kernels, format);
  const int64_t n_strips = (n_rows + kTileRows - 1) / kTileRows;
  const int64_t n_tiles = (n_cols + kTileK - 1) / kTileK;
  const int wanted_threads = n_threads > 0 ? n_threads : default_n_threads();
  const int n_used = static_cast<int>(std::min<int64_t>(wanted_threads, n_strips));
  const int64_t n_scratch = encode_scratch_floats(n_cols);
  const int64_t n_floats = n_tiles * kTileK + n_used * n_scratch;
  const std::unique_ptr<float[]> memory(new (std::nothrow) float[static_cast<size_t>(n_floats)]());
  if (!memory) {
    return {Code::kOutOfMemory, "cannot allocate " + std::to_string(n_floats * 4) +
                                    " bytes to encode; use fewer threads"};
  }
  float* const h = memory.get();
  EDGE_RETURN_IF_ERROR(normalize_importance(importance, n_cols, h));

  const size_t bytes_per_strip = strip_bytes(format, n_tiles);
  const float limit = weight_limit(format);
  std::atomic<int64_t> first_bad{INT64_MAX};
  parallel_for(n_used, n_strips, [&](int64_t strip, int thread) {
    const int64_t row0 = strip * kTileRows;
    const int64_t rows = std::min<int64_t>(kTileRows, n_rows - row0);
    const int64_t bad = find_bad_weight(weights + row0 * n_cols, rows * n_cols, limit);
    if (bad >= 0) {
      int64_t known = first_bad.load();
      while (row0 * n_cols + bad < known &&
             !first_bad.compare_exchange_weak(known, row0 * n_cols + bad)) {
      }
      return;
    }
    encode({.weights = weights + row0 * n_cols,
            .n_cols = n_cols,
            .n_rows = static_cast<int>(rows),
            .importance = h,
            .scratch = h + n_tiles * kTileK + thread * n_scratch,
            .out = out.data() + static_cast<size_t>(strip) * bytes_per_strip});
  });
  if (first_bad != INT64_MAX) return bad_weight(format, weights, first_bad, n_cols);
  return {};
}

Status encode_tensor(Format format, const float* weights, int64_t n_rows, int64_t n_cols,
                     const float* importance, std::span<std::byte> out, int n_threads) {
  return encode_tensor_with(*active_kernels().encode, format, weights, n_rows, n_cols, importance,
                            out, n_threads);
}

}  // namespace edge
