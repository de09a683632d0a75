// OrtGraphs: the graphs of a bundle, run by onnxruntime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/npu/bundle.h"
#include "backends/npu/graph.h"
#include "backends/npu/ort.h"
#include "backends/npu/step_memory.h"
#include "backends/step_graphs.h"

namespace edge::npu {

class OrtGraphs final : public StepGraphs {
 public:
  // As open_step_graphs().
  static Result<std::unique_ptr<StepGraphs>> open(const GraphSettings& settings);

  const GraphFacts& facts() const override { return bundle_.facts; }
  Status start() override;
  Result<int> run(const GraphRun& run) override;
  const float* output(int row) const override;
  void load_new(const GraphRow& row, float* key, float* value) const override;
  void store_past(int buffer, const GraphRow& row, const float* key, const float* value) override;

 private:
  // The parts of a step, one after the other.
  struct Step {
    int n_rows = 0;
    int n_past = 0;
    std::vector<std::unique_ptr<Graph>> parts;
  };
  explicit OrtGraphs(Bundle bundle);
  Status take(const GraphSettings& settings);
  Status check_target() const;
  int bucket_for(int n_slots) const;  // 0: none
  Step& choose(int n_pending, int n_past);
  Status check_finite(const Step& step, int n_before, int n_rows) const;

  Bundle bundle_;
  StepMemory memory_;
  std::string library_;
  int n_threads_ = 0;
  Provider provider_;
  std::vector<Step> steps_;  // by n_past, then n_rows
  const Step* last_ = nullptr;
};

}  // namespace edge::npu
