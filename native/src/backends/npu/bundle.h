// A bundle of graphs, as `edgellm convert --target npu:...` writes it: a folder with files and
// their description, bundle.json (docs/NPU.md). All of it is untrusted until it is checked; the
// Python half is edgellm/npu/bundle.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "backends/step_graphs.h"
#include "base/status.h"

namespace edge::npu {

// Of one kind of rope: angle = position * inv_freq, and what cos and sin are multiplied by.
struct Rotation {
  std::vector<float> inv_freq;
  double factor = 1;
};

// One graph of a step: a part of the model for n_rows tokens beside n_past slots.
struct GraphPart {
  std::string name;
  std::string path;
  int n_rows = 0;
  int n_past = 0;
  int part = 0;  // its place among those of the same shape
  std::vector<std::string> inputs, outputs;
  bool is_host = false;  // for a CPU: the embedding, or the head
};

struct Bundle {
  GraphFacts facts;
  std::vector<GraphPart> graphs;           // by n_past, n_rows, part; without those for a CPU
  std::string folder;                      // of those, in the bundle's, with "/"; "": in itself
  std::vector<std::string> other_folders;  // of other generations
  std::map<std::string, Rotation> rotations;
  int n_positions = 0;                          // that are learned; 0: none are
  float masked = 0;                             // added to a score that does not count
  std::map<std::string, std::string> settings;  // of the target's executor
  size_t file_bytes = 0;

  int most_rows() const;
};

// kJson..., kFileUnreadable, kTensorMissing and kTensorUnexpected for graphs that do not make a
// model, kFeatureUnsupported for a bundle that keeps its own keys and values, kLeafHash for a file
// that is not what was written.
// generation: of the vendor's NPUs, where each has graphs of its own in a folder, "v" and its name;
// files of others need not be there. kInvalidArgument where it is none of them.
Result<Bundle> read_bundle(const std::string& directory, const std::string& generation = "");

}  // namespace edge::npu
