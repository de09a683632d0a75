// The driver of GPTQ's search: checks the input, turns rows into lanes, shares strips among
// threads, picks the ISA.
#include "kernels/gptq.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <string>

#include "base/fp_env.h"
#include "base/thread_pool.h"
#include "kernels/gptq_kernels.h"
#include "kernels/kernels.h"

namespace edge {

namespace {

const GptqSearch* find_search(const GptqKernels& kernels, Format format) {
  switch (format) {
    case Format::kE2_16:
      return &kernels.e2_16;
    case Format::kE3_32:
      return &kernels.e3_32;
    case Format::kE4_16:
      return &kernels.e4_16;
    case Format::kE4_32:
      return &kernels.e4_32;
    case Format::kE6_16:
      return &kernels.e6_16;
    case Format::kE8_32:
      return &kernels.e8_32;
    default:
      return nullptr;
  }
}

Status check_block(const GptqSearch* search, const GptqBlock& block) {
  const std::string name(format_name(block.format));
  if (search == nullptr) return {Code::kInvalidArgument, name + " has no scales to search"};
  const int group = columns_per_scale(block.format);
  if (block.n_rows < 1 || block.n_cols < 1 || block.n_cols > kMaxGptqCols ||
      block.n_cols % group != 0) {
    return {Code::kInvalidArgument, "cannot search a block of " + std::to_string(block.n_rows) +
                                        " x " + std::to_string(block.n_cols) +
                                        "; columns come in groups of " + std::to_string(group) +
                                        ", up to " + std::to_string(kMaxGptqCols)};
  }
  return {};
}

// One strip's rows as lanes, and back. Lanes without a row see zeros, and 1 as d_row.
struct Strip {
  int64_t row0;
  int n_rows;

  template <class From, class To>
  void load(const From* rows, int64_t n_cols, To* lanes) const {
    for (int64_t k = 0; k < n_cols; ++k) {
      for (int row = 0; row < kTileRows; ++row) {
        lanes[kTileRows * k + row] =
            row < n_rows ? static_cast<To>(rows[(row0 + row) * n_cols + k]) : To{};
      }
    }
  }
  template <class From, class To>
  void store(const From* lanes, int64_t n_cols, To* rows) const {
    for (int row = 0; row < n_rows; ++row) {
      for (int64_t k = 0; k < n_cols; ++k) {
        rows[(row0 + row) * n_cols + k] = static_cast<To>(lanes[kTileRows * k + row]);
      }
    }
  }
  void load_d_row(const float* from, float* lanes) const {
    for (int row = 0; row < kTileRows; ++row) lanes[row] = row < n_rows ? from[row0 + row] : 1.0f;
  }
};

// What a thread works on: three float and two integer planes of a block of one strip.
struct Planes {
  explicit Planes(int64_t n_cols_in) : n_cols(n_cols_in) {
    const size_t n = static_cast<size_t>(kTileRows * n_cols);
    floats.reset(new (std::nothrow) float[3 * n]);
    integers.reset(new (std::nothrow) int32_t[2 * n]);
  }
  bool ok() const { return floats && integers; }
  float* plane(int index) { return floats.get() + index * kTileRows * n_cols; }
  int32_t* levels() { return integers.get(); }
  int32_t* scale_bytes() { return integers.get() + kTileRows * n_cols; }

  int64_t n_cols;
  std::unique_ptr<float[]> floats;
  std::unique_ptr<int32_t[]> integers;
};

// body(strip, planes) for every strip of the block.
template <class Body>
Status for_strips(const GptqBlock& block, int n_threads, const Body& body) {
  const int64_t n_strips = (block.n_rows + kTileRows - 1) / kTileRows;
  const int n_used = static_cast<int>(std::clamp<int64_t>(n_threads, 1, n_strips));
  std::atomic<bool> out_of_memory{false};
  parallel_for(n_used, n_used, [&](int64_t share, int) {
    const FpEnvScope fp_env;
    Planes planes(block.n_cols);
    if (!planes.ok()) {
      out_of_memory = true;
      return;
    }
    for (int64_t index = share; index < n_strips; index += n_used) {
      const int64_t row0 = index * kTileRows;
      body(Strip{row0, static_cast<int>(std::min<int64_t>(kTileRows, block.n_rows - row0))},
           planes);
    }
  });
  if (out_of_memory) return {Code::kOutOfMemory, "no memory to search codes in; use fewer threads"};
  return {};
}

}  // namespace

Status gptq_sweep_with(const GptqKernels& kernels, const GptqBlock& block, const float* target,
                       const float* upper, float* moved, int n_threads) {
  const GptqSearch* search = find_search(kernels, block.format);
  EDGE_RETURN_IF_ERROR(check_block(search, block));
  const int64_t n_groups = block.n_cols / columns_per_scale(block.format);
  return for_strips(block, n_threads, [&](const Strip& strip, Planes& planes) {
    float d_row[kTileRows];
    strip.load_d_row(block.d_row, d_row);
    strip.load(target, block.n_cols, planes.plane(0));
    search->sweep({.n_cols = static_cast<int>(block.n_cols),
                   .upper = upper,
                   .d_row = d_row,
                   .rest = planes.plane(0),
                   .moved = planes.plane(1),
                   .scale_byte = planes.scale_bytes(),
                   .level = planes.levels()});
    strip.store(planes.plane(1), block.n_cols, moved);
    strip.store(planes.scale_bytes(), n_groups, block.scale_bytes);
    strip.store(planes.levels(), block.n_cols, block.levels);
  });
}

Status gptq_descend_with(const GptqKernels& kernels, const GptqBlock& block,
                         const GptqDescent& descent, int n_threads) {
  const GptqSearch* search = find_search(kernels, block.format);
  EDGE_RETURN_IF_ERROR(check_block(search, block));
  const int64_t n_groups = block.n_cols / columns_per_scale(block.format);
  return for_strips(block, n_threads, [&](const Strip& strip, Planes& planes) {
    float d_row[kTileRows];
    strip.load_d_row(block.d_row, d_row);
    strip.load(descent.weights, block.n_cols, planes.plane(0));
    strip.load(descent.errors, block.n_cols, planes.plane(1));
    strip.load(descent.pulls, block.n_cols, planes.plane(2));
    strip.load(block.scale_bytes, n_groups, planes.scale_bytes());
    strip.load(block.levels, block.n_cols, planes.levels());
    search->descend({.n_cols = static_cast<int>(block.n_cols),
                     .hessian = descent.hessian,
                     .group_uppers = descent.group_uppers,
                     .group_inverses = descent.group_inverses,
                     .d_row = d_row,
                     .weights = planes.plane(0),
                     .errors = planes.plane(1),
                     .pulls = planes.plane(2),
                     .scale_byte = planes.scale_bytes(),
                     .level = planes.levels()});
    strip.store(planes.scale_bytes(), n_groups, block.scale_bytes);
    strip.store(planes.levels(), block.n_cols, block.levels);
  });
}

Status gptq_sweep(const GptqBlock& block, const float* target, const float* upper, float* moved,
                  int n_threads) {
  return gptq_sweep_with(*active_kernels().gptq, block, target, upper, moved, n_threads);
}

Status gptq_descend(const GptqBlock& block, const GptqDescent& descent, int n_threads) {
  return gptq_descend_with(*active_kernels().gptq, block, descent, n_threads);
}

}  // namespace edge
