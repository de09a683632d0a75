// edge_ops: how long every op of a backend takes for the shapes of a model of 8 billion weights,
// and what that is of memory and arithmetic. The list that backend_ops_test checks.
#include <algorithm>
#include <cstdio>
#include <thread>

#include "args.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/device_library.h"
#include "kernels/kernels.h"
#include "ops.h"

namespace {

constexpr const char* kUsage =
    "edge_ops [--backend cpu|cuda|metal|vulkan] [--rows N] [--past TOKENS] [--repeat N] "
    "[--threads N] [--small 1]";

int fail(const edge::Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return edge_tools::kExitFailure;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  std::string name = "cpu";
  int n_rows = 1, n_past = 2048, n_repeat = 20, n_threads = 1, is_small = 0;
  args.text("--backend", name);
  args.number("--rows", n_rows);
  args.number("--past", n_past);
  args.number("--repeat", n_repeat);
  args.number("--threads", n_threads);
  args.number("--small", is_small);
  if (!args.positional(0, kUsage) || n_rows < 1 || n_rows > 128 || n_past < 0 || n_repeat < 1 ||
      n_threads < 1) {
    return edge_tools::kExitUsage;
  }
  edge::test::OpShape shape = {.name = "8B",
                               .d_model = 4096,
                               .n_heads = 32,
                               .n_kv_heads = 8,
                               .head_dim = 128,
                               .d_ffn = 14336,
                               .n_vocab = 16384,
                               .n_rope = 128,
                               .n_rows = n_rows,
                               .n_past = n_past};
  if (is_small != 0) {
    shape.d_model = 256, shape.d_ffn = 512, shape.n_vocab = 512, shape.n_heads = 4;
    shape.n_kv_heads = 2, shape.head_dim = shape.n_rope = 64;
  }
  std::unique_ptr<edge::Backend> backend =
      edge::create_cpu_backend(edge::active_kernels(), n_threads);
  if (name != "cpu") {
    auto opened = edge::open_device_backend(name, std::move(backend));
    if (!opened.is_ok()) return fail(opened.status());
    backend = opened.take();
  }
  const edge::test::OpWeights weights(shape);
  auto made = edge::test::OpRig::create(shape, weights, std::move(backend));
  if (!made.is_ok()) return fail(made.status());
  edge::test::OpRig& rig = *made.value();
  std::printf("%s, %d rows behind %d tokens, E4_16, K8V8\n", name.c_str(), n_rows, n_past);
  for (const edge::test::Op& op : edge::test::all_ops()) {
    edge::Status status;
    const double ms = edge::test::time_ms(rig, op, n_repeat, status);
    if (!status.is_ok()) return fail(status);
    std::printf("%-28s %10.1f us %9.1f GB/s %9.1f Gop/s\n", op.name, ms * 1e3,
                op.bytes(shape) * 1e-6 / ms, op.flops(shape) * 1e-6 / ms);
  }
  return 0;
}
