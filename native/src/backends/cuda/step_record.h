// What a step queues, before it is queued: launches and copies in their order. As a list it can be
// given to a stream one by one, or compared with that of an earlier step whose graph there is.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backends/cuda/kernel_table.h"

namespace edge::cuda {

// One thing on a stream: a launch, or without kernel a copy.
struct StepNode {
  const Kernel* kernel = nullptr;
  dim3 grid, block;
  size_t args_at = 0;  // in the record's bytes
  void* to = nullptr;
  const void* from = nullptr;
  size_t n_bytes = 0;

  bool is_copy() const { return kernel == nullptr; }
};

class StepRecord {
 public:
  // args: kernel->args_bytes of them.
  void launch(const Kernel& kernel, const std::byte* args, dim3 grid, dim3 block);
  void copy(void* to, const void* from, size_t n_bytes);
  // Before everything else.
  void copy_first(void* to, const void* from, size_t n_bytes);
  void clear();

  std::span<const StepNode> nodes() const { return nodes_; }
  // Aligned for any struct.
  std::byte* args_of(const StepNode& node) { return args_.data() + node.args_at; }
  const std::byte* args_of(const StepNode& node) const { return args_.data() + node.args_at; }

  // Whether the other one has the same kernels and copies in the same order, with whatever
  // arguments.
  bool has_shape_of(const StepRecord& other) const;
  // Whether node i is the same in both, arguments and all.
  bool has_node_of(const StepRecord& other, size_t i) const;
  // Node i as in the other one, of the same shape.
  void take_node(const StepRecord& other, size_t i);

 private:
  std::vector<StepNode> nodes_;
  std::vector<std::byte> args_;
};

}  // namespace edge::cuda
