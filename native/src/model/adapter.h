// Adapter: low-rank changes of a model's matrices, y = W x + B (A x), for the rows of a step that
// name it. The tensors of an adapter file, looked up once and checked against the model's spec.
// Views into the mapped file; the EdgeFile must outlive them. Knows nothing of files that are
// models, and of which rows have an adapter only what a step says.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "format/edge_file.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edge {

// The matrices that an adapter may change: those of attention, and of feed-forward networks
// without experts.
enum class LoraRole : uint8_t { kAttnQ, kAttnK, kAttnV, kAttnO, kFfnGate, kFfnUp, kFfnDown };
constexpr size_t kLoraRoles = 7;
constexpr int kMaxAdapterRank = 1024;

struct LoraPair {
  Tensor a;  // F16 [rank, columns of the matrix]
  Tensor b;  // F16 [rows of the matrix, rank], scaled by alpha / rank
  bool is_valid() const { return a.data != nullptr; }
};

struct Adapter {
  int rank = 0;  // the largest
  std::vector<std::array<LoraPair, kLoraRoles>> layers;

  // The file must be an adapter (kSpecInvalid) of a model of this family, width and depth
  // (kAdapterMismatch); every tensor must have a matrix of the model to change, the shape that goes
  // with it and its other half (kTensorUnexpected, kTensorShape, kTensorMissing, kTensorRole,
  // kTensorFormat).
  static Result<Adapter> bind(const EdgeFile& file, const ModelSpec& spec);
};

// Whether the text of "edgellm.spec" says that the file is an adapter; false for what is no JSON.
bool is_adapter_spec(std::string_view spec_json);

// Which rows of a step go through which adapter.
class AdapterRows {
 public:
  void set(std::span<const RowInput> rows);
  // The rows whose adapter changes matrix `role` of a layer; valid until the next call with it.
  LoraSpan of(size_t layer, LoraRole role);

 private:
  struct Run {
    const Adapter* adapter;
    int row0, n_rows;
  };
  std::vector<Run> runs_;  // neighbours with one adapter; rows without one are in none
  std::array<std::vector<LoraRows>, kLoraRoles> found_;
};

}  // namespace edge
