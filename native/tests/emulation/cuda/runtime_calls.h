// The CUDA runtime's calls, for the CPU, as late as CUDA may be: what is queued on a stream runs
// when something waits for it. So memory that a copy still has to read and that was written again,
// and memory that a copy still has to write and that is read already, are seen. What may be
// pageable host memory is read and written during the call, as CUDA does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>

namespace cuda_on_cpu {

struct Stream;
struct Event;
struct Graph;
struct GraphExec;

// A kernel as launches know it: it stays for ever.
struct Function {
  size_t args_bytes = 0;
  std::function<void(const void* args)> run;
};
// Of all kernels, where they are made.
inline std::deque<Function>& functions() {
  static std::deque<Function> all;
  return all;
}
template <class Args>
const void* function_of(void (*kernel)(Args)) {
  functions().push_back(
      {sizeof(Args), [kernel](const void* args) { kernel(*static_cast<const Args*>(args)); }});
  return &functions().back();
}

// What has been called so far, and what is done wrong from now on, for tests.
struct Calls {
  int n_launches = 0;  // that were not a graph's
  int n_graphs = 0;    // made
  int n_graph_runs = 0;
  int n_updates = 0;          // of nodes of graphs
  size_t n_device_bytes = 0;  // that are allocated, managed memory not included
};
enum class Fault { kNone, kUpdateIsIgnored, kNodesHaveNoOrder };
Calls& calls();
void set_fault(Fault fault);
// Memory of the device from now on; 0: as much as there is.
void set_device_bytes(size_t n_bytes);

}  // namespace cuda_on_cpu

using cudaStream_t = cuda_on_cpu::Stream*;
using cudaEvent_t = cuda_on_cpu::Event*;
using cudaGraph_t = cuda_on_cpu::Graph*;
using cudaGraphExec_t = cuda_on_cpu::GraphExec*;
using cudaGraphNode_t = size_t*;  // its number
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDefault };
constexpr unsigned cudaEventDisableTiming = 2;
struct cudaDeviceProp {
  char name[256];
  int major, minor;
};
struct cudaKernelNodeParams {
  void* func;
  dim3 gridDim, blockDim;
  unsigned sharedMemBytes;
  void** kernelParams;
  void** extra;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDeviceCount(int* n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(size_t* n_free, size_t* n_total);

cudaError_t cudaMalloc(void** memory, size_t n_bytes);
cudaError_t cudaMallocManaged(void** memory, size_t n_bytes);
cudaError_t cudaMallocHost(void** memory, size_t n_bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaFreeHost(void* memory);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** args,
                             size_t shared_bytes, cudaStream_t stream);

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                   const cudaGraphNode_t* before, size_t n_before,
                                   const cudaKernelNodeParams* params);
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph,
                                     const cudaGraphNode_t* before, size_t n_before, void* to,
                                     const void* from, size_t n_bytes, cudaMemcpyKind kind);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* params);
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void* to,
                                               const void* from, size_t n_bytes,
                                               cudaMemcpyKind kind);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
