// Graph: one graph of a bundle, open in onnxruntime, with what it reads and writes bound.
#pragma once

#include <memory>
#include <vector>

#include "backends/npu/bundle.h"
#include "backends/npu/ort.h"
#include "backends/npu/step_memory.h"

namespace edge::npu {

class Graph {
 public:
  // What `ort`, `part` and `bundle` are must outlive it. kDeviceFailed with onnxruntime's words;
  // kTensorMissing, kTensorUnexpected, kTensorShape, kTensorDtype where the graph is not what the
  // bundle says.
  static Result<std::unique_ptr<Graph>> open(const Ort& ort, const OrtSessionOptions* options,
                                             const GraphPart& part, const Bundle& bundle);

  const GraphPart& part() const { return part_; }
  // Where it finds the past of each buffer and the rest. Once, before run().
  Status bind(const StepMemory& memory, int n_buffers);
  Status run(int buffer);

 private:
  Graph(const Ort& ort, const GraphPart& part, const Bundle& bundle)
      : ort_(ort), part_(part), bundle_(bundle), session_(ort) {}
  Status check_side(bool is_output) const;
  Status check_one(bool is_output, size_t index, const std::string& text) const;
  Status bind_one(const StepMemory& memory, int buffer, const std::string& text, bool is_output);

  const Ort& ort_;
  const GraphPart& part_;
  const Bundle& bundle_;
  OwnedSession session_;
  std::vector<OwnedValue> values_;      // that bindings name
  std::vector<OwnedBinding> bindings_;  // by buffer
};

}  // namespace edge::npu
