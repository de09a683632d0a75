// Steps as graphs: what a stream is told in hundreds of calls, told in one. Steps of the same shape
// differ in few arguments (how many segments attention has, where a room has grown to), so the
// graph of an earlier one is changed in these and launched again.
#pragma once

#include <vector>

#include "backends/cuda/step_record.h"
#include "base/status.h"

namespace edge::cuda {

class StepGraphs {
 public:
  StepGraphs() = default;
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  // Queues what was recorded: the first time that a shape comes node by node, from the second on
  // as its graph.
  Status run(const StepRecord& record, cudaStream_t stream);

 private:
  struct Known {
    StepRecord record;  // as the graph is
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;      // null: its shape has come once
    std::vector<cudaGraphNode_t> nodes;  // those of the record
    uint64_t last_run = 0;
  };
  Known* find(const StepRecord& record);
  Known& forget_oldest();
  static Status queue(const StepRecord& record, cudaStream_t stream);
  static Status build(Known& known);
  static Status update(Known& known, const StepRecord& record);
  static void destroy(Known& known);

  std::vector<Known> known_;
  uint64_t n_runs_ = 0;
};

}  // namespace edge::cuda
