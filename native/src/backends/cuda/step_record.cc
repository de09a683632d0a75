#include "backends/cuda/step_record.h"

#include <algorithm>
#include <cstring>

namespace edge::cuda {
namespace {

constexpr size_t kArgsAlignment = 16;

bool is_same(const dim3& a, const dim3& b) { return a.x == b.x && a.y == b.y && a.z == b.z; }

}  // namespace

void StepRecord::launch(const Kernel& kernel, const std::byte* args, dim3 grid, dim3 block) {
  StepNode& node = nodes_.emplace_back();
  node.kernel = &kernel;
  node.grid = grid;
  node.block = block;
  node.args_at = args_.size();
  const size_t end = node.args_at + kernel.args_bytes;
  args_.resize((end + kArgsAlignment - 1) / kArgsAlignment * kArgsAlignment);
  std::memcpy(args_.data() + node.args_at, args, kernel.args_bytes);
}

void StepRecord::copy(void* to, const void* from, size_t n_bytes) {
  StepNode& node = nodes_.emplace_back();
  node.to = to;
  node.from = from;
  node.n_bytes = n_bytes;
}

void StepRecord::copy_first(void* to, const void* from, size_t n_bytes) {
  copy(to, from, n_bytes);
  std::rotate(nodes_.begin(), nodes_.end() - 1, nodes_.end());
}

void StepRecord::clear() {
  nodes_.clear();
  args_.clear();
}

bool StepRecord::has_shape_of(const StepRecord& other) const {
  return std::ranges::equal(nodes_, other.nodes_, {}, &StepNode::kernel, &StepNode::kernel);
}

bool StepRecord::has_node_of(const StepRecord& other, size_t i) const {
  const StepNode &a = nodes_[i], &b = other.nodes_[i];
  if (a.is_copy()) return a.to == b.to && a.from == b.from && a.n_bytes == b.n_bytes;
  return is_same(a.grid, b.grid) && is_same(a.block, b.block) &&
         std::memcmp(args_of(a), other.args_of(b), a.kernel->args_bytes) == 0;
}

void StepRecord::take_node(const StepRecord& other, size_t i) {
  const StepNode& from = other.nodes_[i];
  StepNode& node = nodes_[i];
  const size_t args_at = node.args_at;
  node = from;
  node.args_at = args_at;
  if (!node.is_copy()) {
    std::memcpy(args_of(node), other.args_of(from), node.kernel->args_bytes);
  }
}

}  // namespace edge::cuda
