#include "backends/cuda/step_graphs.h"

#include <algorithm>
#include <utility>

#include "backends/cuda/device_memory.h"

namespace edge::cuda {
namespace {

constexpr size_t kMostKnown = 32;  // numbers of rows, with and without what some of them ask for

cudaKernelNodeParams params_of(const StepNode& node, void** args) {
  cudaKernelNodeParams params = {};
  params.func = const_cast<void*>(node.kernel->function);
  params.gridDim = node.grid;
  params.blockDim = node.block;
  params.kernelParams = args;  // read during the call
  return params;
}

}  // namespace

StepGraphs::~StepGraphs() {
  for (Known& known : known_) destroy(known);
}

Status StepGraphs::run(const StepRecord& record, cudaStream_t stream) {
  if (record.nodes().empty()) return {};
  Known* known = find(record);
  if (known == nullptr) {
    Known& made = known_.size() < kMostKnown ? known_.emplace_back() : forget_oldest();
    made.record = record;
    made.last_run = ++n_runs_;
    return queue(record, stream);
  }
  known->last_run = ++n_runs_;
  if (known->exec == nullptr || !update(*known, record).is_ok()) {
    destroy(*known);
    known->record = record;
    EDGE_RETURN_IF_ERROR(build(*known));
  }
  return status_of(cudaGraphLaunch(known->exec, stream), "a step's graph");
}

StepGraphs::Known* StepGraphs::find(const StepRecord& record) {
  const auto found = std::ranges::find_if(
      known_, [&](const Known& known) { return known.record.has_shape_of(record); });
  return found == known_.end() ? nullptr : &*found;
}

StepGraphs::Known& StepGraphs::forget_oldest() {
  Known& oldest = *std::ranges::min_element(known_, {}, &Known::last_run);
  destroy(oldest);
  return oldest;
}

Status StepGraphs::queue(const StepRecord& record, cudaStream_t stream) {
  for (const StepNode& node : record.nodes()) {
    if (node.is_copy()) {
      EDGE_RETURN_IF_ERROR(status_of(
          cudaMemcpyAsync(node.to, node.from, node.n_bytes, cudaMemcpyDefault, stream), "a copy"));
      continue;
    }
    void* args = const_cast<std::byte*>(record.args_of(node));
    EDGE_RETURN_IF_ERROR(
        status_of(cudaLaunchKernel(node.kernel->function, node.grid, node.block, &args, 0, stream),
                  "a launch"));
  }
  return {};
}

// One behind the other, as on a stream.
Status StepGraphs::build(Known& known) {
  EDGE_RETURN_IF_ERROR(status_of(cudaGraphCreate(&known.graph, 0), "a graph"));
  for (const StepNode& node : known.record.nodes()) {
    const cudaGraphNode_t* before = known.nodes.empty() ? nullptr : &known.nodes.back();
    const size_t n_before = known.nodes.empty() ? 0 : 1;
    cudaGraphNode_t made = nullptr;
    if (node.is_copy()) {
      EDGE_RETURN_IF_ERROR(
          status_of(cudaGraphAddMemcpyNode1D(&made, known.graph, before, n_before, node.to,
                                             node.from, node.n_bytes, cudaMemcpyDefault),
                    "a graph's copy"));
    } else {
      void* args = known.record.args_of(node);
      const cudaKernelNodeParams params = params_of(node, &args);
      EDGE_RETURN_IF_ERROR(
          status_of(cudaGraphAddKernelNode(&made, known.graph, before, n_before, &params),
                    "a graph's launch"));
    }
    known.nodes.push_back(made);
  }
  return status_of(cudaGraphInstantiate(&known.exec, known.graph, 0), "a step's graph");
}

Status StepGraphs::update(Known& known, const StepRecord& record) {
  for (size_t i = 0; i < known.nodes.size(); ++i) {
    if (known.record.has_node_of(record, i)) continue;
    known.record.take_node(record, i);
    const StepNode& node = known.record.nodes()[i];
    if (node.is_copy()) {
      EDGE_RETURN_IF_ERROR(
          status_of(cudaGraphExecMemcpyNodeSetParams1D(known.exec, known.nodes[i], node.to,
                                                       node.from, node.n_bytes, cudaMemcpyDefault),
                    "a graph's copy"));
      continue;
    }
    void* args = known.record.args_of(node);
    const cudaKernelNodeParams params = params_of(node, &args);
    EDGE_RETURN_IF_ERROR(status_of(
        cudaGraphExecKernelNodeSetParams(known.exec, known.nodes[i], &params), "a graph's launch"));
  }
  return {};
}

// What runs of it goes on: CUDA frees it behind.
void StepGraphs::destroy(Known& known) {
  if (known.exec != nullptr) cudaGraphExecDestroy(std::exchange(known.exec, nullptr));
  if (known.graph != nullptr) cudaGraphDestroy(std::exchange(known.graph, nullptr));
  known.nodes.clear();
}

}  // namespace edge::cuda
