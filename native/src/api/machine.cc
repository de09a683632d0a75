// Facts about the machine and the build, and the weight codecs for the offline tools.
#include <string>

#include "api/guard.h"
#include "api/impl.h"
#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/encode.h"
#include "kernels/kernels.h"
#include "quant/decode.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;
using edge::api::take_or_throw;

int threads_or_default(int n_threads) {
  return n_threads > 0 ? n_threads : edge::default_n_threads();
}

edge::Format tiled_format(std::string_view name) {
  const std::optional<edge::Format> format = edge::format_from_name(name);
  if (!format || edge::tile_bytes(*format) == 0) {
    raise(Code::kInvalidArgument, "'" + std::string(name.substr(0, 40)) +
                                      "' is not a weight format; format_table() has them");
  }
  return *format;
}

// Bytes of a tensor whose shape comes from a caller.
uint64_t checked_tensor_bytes(edge::Format format, int64_t n_rows, int64_t n_cols) {
  if (n_rows < 1 || n_cols < 1) {
    raise(Code::kInvalidArgument, "the shape is [" + std::to_string(n_rows) + ", " +
                                      std::to_string(n_cols) + "]; both must be at least 1");
  }
  const std::optional<uint64_t> n_bytes =
      edge::tensor_bytes(format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols));
  if (!n_bytes) raise(Code::kInvalidArgument, "the shape is too large");
  return *n_bytes;
}

void check_size(const char* what, uint64_t n_is, uint64_t n_must) {
  if (n_is == n_must) return;
  raise(Code::kInvalidArgument, std::string(what) + ": " + std::to_string(n_is) + " given and " +
                                    std::to_string(n_must) + " needed for the shape");
}

}  // namespace

std::vector<std::string> isa_levels() {
  return entry([] {
    std::vector<std::string> names;
    for (const edge::Isa isa : edge::supported_isas()) names.emplace_back(edge::isa_name(isa));
    return names;
  });
}

std::string active_isa() {
  return entry([] { return std::string(edge::isa_name(take_or_throw(edge::active_isa()))); });
}

int default_n_threads() {
  return entry([] { return edge::default_n_threads(); });
}

MemoryFigures memory_figures() {
  return entry([] {
    const edge::MemoryFigures figures = edge::memory_figures();
    return MemoryFigures{.total_bytes = figures.total_bytes,
                         .available_bytes = figures.available_bytes,
                         .rss_bytes = figures.rss_bytes,
                         .peak_rss_bytes = figures.peak_rss_bytes};
  });
}

std::vector<FormatInfo> format_table() {
  return {
#define EDGE_FORMAT(id, name, group_k, tile_bytes, head_bytes) \
  {name, group_k, tile_bytes, head_bytes},
#include "tensor/formats.inc"
#undef EDGE_FORMAT
  };
}

std::vector<std::pair<std::string, std::string>> error_table() {
  return {
#define EDGE_ERROR(name, py_class, text) {text, #py_class},
#include "base/errors.inc"
#undef EDGE_ERROR
  };
}

double measure_read_bandwidth(int n_threads) {
  return entry(
      [&] { return take_or_throw(edge::measure_read_bytes_per_s(threads_or_default(n_threads))); });
}

double measure_int8_peak(int n_threads) {
  return entry([&] { return edge::measure_int8_macs_per_s(threads_or_default(n_threads)); });
}

std::vector<std::byte> encode_tensor(std::string_view format, std::span<const float> weights,
                                     int64_t n_rows, int64_t n_cols,
                                     std::span<const float> importance, int n_threads) {
  return entry([&] {
    const edge::Format tiled = tiled_format(format);
    const uint64_t n_bytes = checked_tensor_bytes(tiled, n_rows, n_cols);
    check_size("weights", weights.size(),
               static_cast<uint64_t>(n_rows) * static_cast<uint64_t>(n_cols));
    if (!importance.empty()) {
      check_size("importance", importance.size(), static_cast<uint64_t>(n_cols));
    }
    std::vector<std::byte> out(n_bytes);
    check(edge::encode_tensor(tiled, weights.data(), n_rows, n_cols,
                              importance.empty() ? nullptr : importance.data(), out,
                              threads_or_default(n_threads)));
    return out;
  });
}

std::vector<float> decode_rows(std::string_view format, std::span<const std::byte> data,
                               int64_t n_rows, int64_t n_cols, int64_t row0, int64_t n) {
  return entry([&] {
    const edge::Format tiled = tiled_format(format);
    check_size("data bytes", data.size(), checked_tensor_bytes(tiled, n_rows, n_cols));
    if (row0 < 0 || n < 0 || row0 > n_rows || n > n_rows - row0) {
      raise(Code::kInvalidArgument, "rows " + std::to_string(row0) + " + " + std::to_string(n) +
                                        " are not inside the " + std::to_string(n_rows) +
                                        " rows of the tensor");
    }
    std::vector<float> out(static_cast<size_t>(n) * static_cast<size_t>(n_cols));
    // In a file tensors are 64-byte aligned; a caller's slice need not hold floats at all.
    std::vector<std::byte> aligned;
    if (reinterpret_cast<uintptr_t>(data.data()) % alignof(float) != 0) {
      aligned.assign(data.begin(), data.end());
      data = aligned;
    }
    const edge::Tensor tensor{.format = tiled,
                              .n_rows = n_rows,
                              .n_cols = n_cols,
                              .data = data.data(),
                              .n_bytes = data.size()};
    edge::decode_rows(tensor, row0, n, out.data());
    return out;
  });
}

}  // namespace edgellm
