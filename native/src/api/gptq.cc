// GPTQ's search for the offline tools: checks sizes, owns results.
#include "kernels/gptq.h"

#include <string>

#include "api/guard.h"
#include "api/impl.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;

struct Shape {
  edge::Format format;
  size_t n_rows;
  size_t n_cols;
  size_t group;
  size_t n_groups() const { return n_cols / group; }
};

Shape checked_shape(std::string_view name, int64_t n_rows, int64_t n_cols) {
  const std::optional<edge::Format> format = edge::format_from_name(name);
  const int group = format ? edge::columns_per_scale(*format) : 0;
  if (group == 0) {
    raise(Code::kInvalidArgument,
          "'" + std::string(name.substr(0, 40)) + "' is not a format with scales to search");
  }
  constexpr int64_t kMaxRows = int64_t{1} << 32;  // no product of sizes overflows
  if (n_rows < 1 || n_cols < 1 || n_rows > kMaxRows || n_cols > edge::kMaxGptqCols) {
    raise(Code::kInvalidArgument, "cannot search a block of " + std::to_string(n_rows) + " x " +
                                      std::to_string(n_cols) + "; columns: 1 to " +
                                      std::to_string(edge::kMaxGptqCols));
  }
  return {*format, static_cast<size_t>(n_rows), static_cast<size_t>(n_cols),
          static_cast<size_t>(group)};
}

void check_size(const char* what, size_t n_is, size_t n_must) {
  if (n_is == n_must) return;
  raise(Code::kInvalidArgument, std::string(what) + ": " + std::to_string(n_is) + " given and " +
                                    std::to_string(n_must) + " needed for the shape");
}

edge::GptqBlock block_of(const Shape& shape, std::span<const float> d_row, GptqCodes& codes) {
  return {.format = shape.format,
          .n_rows = static_cast<int64_t>(shape.n_rows),
          .n_cols = static_cast<int64_t>(shape.n_cols),
          .d_row = d_row.data(),
          .scale_bytes = codes.scale_bytes.data(),
          .levels = codes.levels.data()};
}

}  // namespace

GptqCodes gptq_sweep(std::string_view format, int64_t n_rows, int64_t n_cols,
                     std::span<const float> target, std::span<const float> upper,
                     std::span<const float> d_row, std::span<float> moved, int n_threads) {
  return entry([&] {
    const Shape shape = checked_shape(format, n_rows, n_cols);
    check_size("target", target.size(), shape.n_rows * shape.n_cols);
    check_size("moved", moved.size(), shape.n_rows * shape.n_cols);
    check_size("upper", upper.size(), shape.n_cols * shape.n_cols);
    check_size("d_row", d_row.size(), shape.n_rows);
    GptqCodes codes{.scale_bytes = std::vector<uint8_t>(shape.n_rows * shape.n_groups()),
                    .levels = std::vector<int8_t>(shape.n_rows * shape.n_cols)};
    check(edge::gptq_sweep(block_of(shape, d_row, codes), target.data(), upper.data(), moved.data(),
                           n_threads));
    return codes;
  });
}

GptqCodes gptq_descend(std::string_view format, int64_t n_rows, int64_t n_cols,
                       const GptqDescent& descent, std::span<const float> d_row, GptqCodes codes,
                       int n_threads) {
  return entry([&] {
    const Shape shape = checked_shape(format, n_rows, n_cols);
    const size_t n_groups = shape.n_groups();
    check_size("weights", descent.weights.size(), shape.n_rows * shape.n_cols);
    check_size("errors", descent.errors.size(), shape.n_rows * shape.n_cols);
    check_size("pulls", descent.pulls.size(), shape.n_rows * shape.n_cols);
    check_size("hessian", descent.hessian.size(), shape.n_cols * shape.n_cols);
    check_size("group_uppers", descent.group_uppers.size(), shape.n_cols * shape.group);
    check_size("group_inverses", descent.group_inverses.size(), shape.n_cols * shape.group);
    check_size("d_row", d_row.size(), shape.n_rows);
    check_size("scale_bytes", codes.scale_bytes.size(), shape.n_rows * n_groups);
    check_size("levels", codes.levels.size(), shape.n_rows * shape.n_cols);
    check(edge::gptq_descend(block_of(shape, d_row, codes),
                             {.weights = descent.weights.data(),
                              .errors = descent.errors.data(),
                              .pulls = descent.pulls.data(),
                              .hessian = descent.hessian.data(),
                              .group_uppers = descent.group_uppers.data(),
                              .group_inverses = descent.group_inverses.data()},
                             n_threads));
    return codes;
  });
}

}  // namespace edgellm
