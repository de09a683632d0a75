// StepGraphs: a model as graphs of fixed shapes that take whole steps, run by a vendor's library.
//
// A graph takes some rows of one sequence beside a contiguous past, which stands in a buffer of the
// library's. Only rows that are new are copied: out of what a graph gave, and into the past. Knows
// nothing of pages, sessions or tokens' meaning. The library is libedgellm_npu (backends/npu),
// opened where a model is loaded with backend "npu".
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace edge {

struct GraphLayer {
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0;  // > 0: position p sees positions p - window < j <= p
};

// What the graphs are made for.
struct GraphFacts {
  std::string target;  // as `edgellm convert --target` names it, without "npu:"
  int n_vocab = 0;
  int d_model = 0;
  std::vector<GraphLayer> layers;
  int capacity = 0;              // tokens of a sequence
  int draft_rows = 1;            // rows of the widest graph for a token and drafts behind it
  bool is_half = false;          // keys and values are binary16, else binary32
  bool has_embedding = true;     // otherwise runs take its rows
  bool has_head = true;          // otherwise runs give what the head reads, before the final norm
  std::string tokenizer_sha256;  // of the tokenizer it was made with; "": not known
  size_t n_bytes = 0;            // of memory, graphs and buffers, once started
};

// Rows of one sequence, one behind the other.
struct GraphRun {
  int buffer = 0;    // the past's
  int n_before = 0;  // tokens in it
  std::span<const int32_t> ids = {};
  const float* x = nullptr;  // [ids.size()][d_model], where the graphs have no embedding
};

// A key or a value of the past, or of the rows just run.
struct GraphRow {
  int layer = 0;
  int kv_head = 0;
  int slot = 0;  // of the past; of what was run: the row
};

class StepGraphs {
 public:
  static constexpr int kBuffers = 2;  // sequences whose past is held

  virtual ~StepGraphs() = default;
  virtual const GraphFacts& facts() const = 0;
  // What reads files and takes memory; before the first run. kDeviceFailed, kDeviceUnavailable, and
  // kTensorShape, kTensorDtype or kTensorMissing for graphs that are not what they are said to be.
  virtual Status start() = 0;

  // The first of the rows, as many as the best graph takes; returns how many. Their keys and values
  // come to stand in the past, too. kContextOverflow, kDeviceFailed, kNumeric.
  virtual Result<int> run(const GraphRun& run) = 0;
  // Of a row just run: logits [n_vocab], or what the head reads [d_model].
  virtual const float* output(int row) const = 0;
  // Key and value [head_dim] of a row just run.
  virtual void load_new(const GraphRow& row, float* key, float* value) const = 0;
  // Replaces them in the past.
  virtual void store_past(int buffer, const GraphRow& row, const float* key,
                          const float* value) = 0;
};

// What to open, by name: "bundle" (a folder), "generation" (of several in it), "library"
// (onnxruntime's), "threads", "provider", "provider_library", and its options as "provider.NAME".
using GraphSettings = std::vector<std::pair<std::string, std::string>>;

// Reads the bundle's description and hashes its files. kDeviceUnavailable where libedgellm_npu is
// not beside this program or module or where EDGELLM_NPU_LIBRARY names it; what is wrong with the
// bundle otherwise.
Result<std::unique_ptr<StepGraphs>> open_step_graphs(const GraphSettings& settings);

// What the library exports as "edgellm_npu_open": graphs, or null and why.
using OpenStepGraphsFn = StepGraphs*(const char* abi, const GraphSettings& settings, Status* why);

}  // namespace edge
