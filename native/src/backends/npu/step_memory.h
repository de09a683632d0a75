// StepMemory: all that graphs read and write, in one piece: inputs, what a step gives, and the past
// of some sequences. Graphs are bound to it once; its addresses stay.
//
// The past of a layer is [n_kv_heads][n_past][head_dim], n_past being the bucket of the graph that
// runs next. Where the text grows into the next bucket heads move apart, in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "backends/npu/bundle.h"
#include "backends/npu/graph_names.h"
#include "backends/step_graphs.h"
#include "base/os.h"

namespace edge::npu {

class StepMemory {
 public:
  explicit StepMemory(const Bundle& bundle);
  size_t n_bytes() const { return n_bytes_; }
  Status allocate();  // before the rest; kOutOfMemory

  // Of part `part` of a step whose past is in `buffer`.
  std::byte* at(const GraphName& name, int buffer, int part) const;
  // Of a step of n_parts parts, what the last one gave: logits or hidden states.
  const float* outputs(int n_parts) const;

  // Inputs of a step of this shape: ids.size() <= n_rows tokens after n_before others.
  void fill_inputs(const GraphPart& shape, int n_before, std::span<const int32_t> ids,
                   const float* x);

  // Makes the past's layout that of a bucket.
  void lay_out(int buffer, int n_past);
  int n_past(int buffer) const { return n_past_[static_cast<size_t>(buffer)]; }
  // Of what graphs of n_rows rows gave, the first n rows into slots n_before and behind.
  void keep(int buffer, int n_before, int n_rows, int n);
  void load_new(const GraphRow& row, int n_rows, float* key, float* value) const;
  void store_past(int buffer, const GraphRow& row, const float* key, const float* value);

 private:
  struct LayerPlaces {
    size_t new_k = 0, new_v = 0;
    size_t past_k[StepGraphs::kBuffers] = {}, past_v[StepGraphs::kBuffers] = {};
  };
  size_t reserve(size_t n_elements, size_t element_bytes);
  const GraphLayer& layer(int index) const { return facts_.layers[static_cast<size_t>(index)]; }
  size_t row_bytes(int index) const;
  float* floats(size_t place) const { return reinterpret_cast<float*>(memory_.data() + place); }
  void fill_mask(const GraphPart& shape, int n_before, int window, float* mask) const;
  void fill_turns(const Rotation& rotation, int n_rows, int n_before, float* cos, float* sin) const;

  const Bundle& bundle_;
  const GraphFacts& facts_;
  size_t element_bytes_;  // of keys and values
  size_t n_bytes_ = 0;
  PageBuffer memory_;
  size_t ids_ = 0, positions_ = 0, logits_ = 0;
  size_t hidden_[2] = {};                    // in turn: what a part takes and what it gives
  std::map<int, size_t> masks_;              // by window
  std::map<std::string, size_t> cos_, sin_;  // by rope
  std::vector<LayerPlaces> layers_;
  int n_past_[StepGraphs::kBuffers];
};

}  // namespace edge::npu
