#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_cpu {

using Work = std::function<void()>;

struct Stream {
  std::deque<Work> queued;
  uint64_t n_queued = 0, n_done = 0;

  void add(Work work) {
    queued.push_back(std::move(work));
    ++n_queued;
  }
  void run_until(uint64_t number) {
    while (n_done < number) {
      const Work work = std::move(queued.front());
      queued.pop_front();
      work();
      ++n_done;
    }
  }
  void run() { run_until(n_queued); }
};

struct Event {
  Stream* stream = nullptr;
  uint64_t number = 0;
};

struct Node {
  Work work;
  std::vector<size_t> before;
};
struct Graph {
  std::vector<Node> nodes;
  std::vector<std::unique_ptr<size_t>> numbers;
};
struct GraphExec {
  std::vector<Node> nodes;
};

namespace {

enum class Kind { kDevice, kManaged, kPinned };
struct Block {
  size_t n_bytes = 0;
  Kind kind = Kind::kDevice;
};
struct State {
  std::mutex mutex;
  std::map<uintptr_t, Block> blocks;
  std::vector<Stream*> streams;
  Calls calls;
  Fault fault = Fault::kNone;
  size_t device_bytes = 0;
};
State& state() {  // never destroyed: pages may be freed at exit
  static State& one = *new State;
  return one;
}

bool is_known(const void* at) {
  const std::lock_guard lock(state().mutex);
  const auto number = reinterpret_cast<uintptr_t>(at);
  const auto after = state().blocks.upper_bound(number);
  if (after == state().blocks.begin()) return false;
  const auto& [begin, block] = *std::prev(after);
  return number - begin < std::max<size_t>(block.n_bytes, 1);
}

cudaError_t allocate(void** memory, size_t n_bytes, Kind kind) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const bool counts = kind == Kind::kDevice;
  if (counts && s.device_bytes > 0 && s.calls.n_device_bytes + n_bytes > s.device_bytes) {
    return cudaErrorMemoryAllocation;
  }
  *memory = std::malloc(n_bytes);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, n_bytes);
  if (counts) s.calls.n_device_bytes += n_bytes;
  s.blocks[reinterpret_cast<uintptr_t>(*memory)] = {n_bytes, kind};
  return cudaSuccess;
}

// Waits for everything, as CUDA does before it frees.
cudaError_t release(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  State& s = state();
  std::vector<Stream*> streams;
  {
    const std::lock_guard lock(s.mutex);
    streams = s.streams;
  }
  for (Stream* stream : streams) stream->run();
  const std::lock_guard lock(s.mutex);
  const auto found = s.blocks.find(reinterpret_cast<uintptr_t>(memory));
  if (found == s.blocks.end()) return cudaErrorInvalidValue;
  if (found->second.kind == Kind::kDevice) s.calls.n_device_bytes -= found->second.n_bytes;
  s.blocks.erase(found);
  std::free(memory);
  return cudaSuccess;
}

Work launch_of(const void* function, dim3 grid, dim3 block, void** args) {
  const auto* known = static_cast<const Function*>(function);
  const auto* from = static_cast<const char*>(args[0]);
  // Structs of a launch begin where any may.
  auto copied = std::make_shared<std::vector<std::max_align_t>>(
      known->args_bytes / sizeof(std::max_align_t) + 1);
  std::memcpy(copied->data(), from, known->args_bytes);
  return [=] {
    lockstep::launch({grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                     [&] { known->run(copied->data()); });
  };
}
Work copy_of(void* to, const void* from, size_t n_bytes) {
  return [=] { std::memcpy(to, from, n_bytes); };
}

cudaError_t add_node(cudaGraphNode_t* node, Graph* graph, const cudaGraphNode_t* before,
                     size_t n_before, Work work) {
  Node made{std::move(work), {}};
  for (size_t i = 0; i < n_before; ++i) made.before.push_back(*before[i]);
  graph->numbers.push_back(std::make_unique<size_t>(graph->nodes.size()));
  graph->nodes.push_back(std::move(made));
  *node = graph->numbers.back().get();
  return cudaSuccess;
}

cudaError_t update(GraphExec* exec, const size_t* node, Work work) {
  ++state().calls.n_updates;
  if (state().fault != Fault::kUpdateIsIgnored) exec->nodes[*node].work = std::move(work);
  return cudaSuccess;
}

// Memory of the device from now on; 0: as much as there is.
void set_device_bytes(size_t n_bytes) { state().device_bytes = n_bytes; }

// Of those nodes that may run, the last one first: an order that was not asked for shows.
void run_graph(const std::vector<Node>& nodes) {
  std::vector<bool> is_done(nodes.size());
  for (size_t n_left = nodes.size(); n_left > 0; --n_left) {
    size_t next = nodes.size();
    while (next-- > 0) {
      if (is_done[next]) continue;
      const auto& before = nodes[next].before;
      const bool is_ready = std::ranges::all_of(before, [&](size_t i) { return is_done[i]; });
      if (is_ready || state().fault == Fault::kNodesHaveNoOrder) break;
    }
    nodes[next].work();
    is_done[next] = true;
  }
}

}  // namespace

Calls& calls() { return state().calls; }
void set_fault(Fault fault) { state().fault = fault; }

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess             ? "no error"
         : error == cudaErrorInvalidValue ? "invalid argument"
                                          : "out of memory";
}
cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  // Times ten, as a test of the opened library says.
  const char* named = std::getenv("EDGELLM_EMULATED_CAPABILITY");
  const int capability = named == nullptr ? 90 : std::atoi(named);
  *properties = {"emulated", capability / 10, capability % 10};
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* n_free, size_t* n_total) {
  // What a test of the opened library says, and nothing once it says so no longer.
  const char* named = std::getenv("EDGELLM_EMULATED_DEVICE_BYTES");
  set_device_bytes(named == nullptr ? 0 : std::strtoull(named, nullptr, 10));
  State& s = state();
  const std::lock_guard lock(s.mutex);
  *n_total = s.device_bytes > 0 ? s.device_bytes : size_t{1} << 40;
  *n_free = *n_total - s.calls.n_device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t n_bytes) {
  return allocate(memory, n_bytes, Kind::kDevice);
}
cudaError_t cudaMallocManaged(void** memory, size_t n_bytes) {
  return allocate(memory, n_bytes, Kind::kManaged);
}
cudaError_t cudaMallocHost(void** memory, size_t n_bytes) {
  return allocate(memory, n_bytes, Kind::kPinned);
}
cudaError_t cudaFree(void* memory) { return release(memory); }
cudaError_t cudaFreeHost(void* memory) { return release(memory); }

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new Stream;
  const std::lock_guard lock(state().mutex);
  state().streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->run();
  const std::lock_guard lock(state().mutex);
  std::erase(state().streams, stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  stream->run();
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {stream, stream->n_queued};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream != nullptr) event->stream->run_until(event->number);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n_bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  if (is_known(to) && is_known(from)) {
    stream->add(copy_of(to, from, n_bytes));
    return cudaSuccess;
  }
  stream->run();
  std::memcpy(to, from, n_bytes);
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** args, size_t,
                             cudaStream_t stream) {
  ++state().calls.n_launches;
  stream->add(launch_of(function, grid, block, args));
  return cudaSuccess;
}

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = new Graph;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                   const cudaGraphNode_t* before, size_t n_before,
                                   const cudaKernelNodeParams* params) {
  return add_node(node, graph, before, n_before,
                  launch_of(params->func, params->gridDim, params->blockDim, params->kernelParams));
}
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph,
                                     const cudaGraphNode_t* before, size_t n_before, void* to,
                                     const void* from, size_t n_bytes, cudaMemcpyKind) {
  if (!is_known(to) || !is_known(from)) return cudaErrorInvalidValue;
  return add_node(node, graph, before, n_before, copy_of(to, from, n_bytes));
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  ++state().calls.n_graphs;
  *exec = new GraphExec{graph->nodes};
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* params) {
  return update(exec, node,
                launch_of(params->func, params->gridDim, params->blockDim, params->kernelParams));
}
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void* to,
                                               const void* from, size_t n_bytes, cudaMemcpyKind) {
  return update(exec, node, copy_of(to, from, n_bytes));
}
// As the graph is now, whatever becomes of it.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++state().calls.n_graph_runs;
  stream->add([nodes = exec->nodes] { run_graph(nodes); });
  return cudaSuccess;
}
