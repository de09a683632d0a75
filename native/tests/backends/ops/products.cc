// edge_products: products with K rows of activations by dot products and by tensor cores, for the
// shapes of a model of 8 billion weights. The bits are the same (backend_ops_test), so this says
// from which K on a backend should choose the one or the other (EDGELLM_GEMM_FROM).
#include <cstdio>
#include <cstdlib>
#include <string>

#include "args.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/device_library.h"
#include "kernels/kernels.h"
#include "ops.h"

namespace {

using edge::test::Op;
using edge::test::OpRig;

constexpr const char* kUsage = "edge_products [--backend cuda] [--repeat N] [--small 1]";
constexpr int kRows[] = {1, 2, 4, 8, 9, 12, 16, 24, 32, 48, 64, 96, 128};
constexpr const char* kOps[] = {"ffn_in", "proj_residual (down)"};

const Op& op_named(std::string_view name) {
  for (const Op& op : edge::test::all_ops()) {
    if (name == op.name) return op;
  }
  std::abort();  // kOps are of all_ops()
}

// A rig whose products go through tensor cores from `gemm_from` rows on.
edge::Result<std::unique_ptr<OpRig>> rig_with(const std::string& backend,
                                              const edge::test::OpShape& shape,
                                              const edge::test::OpWeights& weights,
                                              const char* gemm_from) {
  if (setenv("EDGELLM_GEMM_FROM", gemm_from, 1) != 0) {
    return {edge::Code::kInvalidArgument, "EDGELLM_GEMM_FROM cannot be set"};
  }
  EDGE_ASSIGN_OR_RETURN(
      std::unique_ptr<edge::Backend> opened,
      edge::open_device_backend(backend, edge::create_cpu_backend(edge::active_kernels(), 1)));
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<OpRig> rig,
                        OpRig::create(shape, weights, std::move(opened)));
  EDGE_RETURN_IF_ERROR(edge::test::run_ops(*rig).status());
  return rig;
}

edge::Status measure(const std::string& backend, const edge::test::OpShape& shape,
                     const edge::test::OpWeights& weights, int n_repeat) {
  EDGE_ASSIGN_OR_RETURN(const auto dots, rig_with(backend, shape, weights, "1000000000"));
  EDGE_ASSIGN_OR_RETURN(const auto tensor, rig_with(backend, shape, weights, "1"));
  for (const char* name : kOps) {
    const Op& op = op_named(name);
    edge::Status of_dots, of_tensor;
    const double dots_ms = edge::test::time_ms(*dots, op, n_repeat, of_dots);
    const double tensor_ms = edge::test::time_ms(*tensor, op, n_repeat, of_tensor);
    EDGE_RETURN_IF_ERROR(of_dots);
    EDGE_RETURN_IF_ERROR(of_tensor);
    const double best_ms = dots_ms < tensor_ms ? dots_ms : tensor_ms;
    std::printf("%4d %-22s %10.1f %10.1f %8.2f %9.1f %11.1f\n", shape.n_rows, name, dots_ms * 1e3,
                tensor_ms * 1e3, dots_ms / tensor_ms, op.bytes(shape) * 1e-6 / best_ms,
                op.flops(shape) * 1e-6 / best_ms);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  std::string backend = "cuda";
  int n_repeat = 20, is_small = 0;
  args.text("--backend", backend);
  args.number("--repeat", n_repeat);
  args.number("--small", is_small);
  if (!args.positional(0, kUsage) || n_repeat < 1) return edge_tools::kExitUsage;
  edge::test::OpShape shape = {.name = "8B",
                               .d_model = 4096,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 128,
                               .d_ffn = 14336,
                               .n_vocab = 64,
                               .n_rope = 128};
  if (is_small != 0) shape.d_model = 128, shape.d_ffn = 256;
  const edge::test::OpWeights weights(shape);
  std::printf("%s, E4_16, [%lld, %lld]: microseconds by dot products and by tensor cores\n",
              backend.c_str(), static_cast<long long>(shape.d_ffn),
              static_cast<long long>(shape.d_model));
  std::printf("%4s %-22s %10s %10s %8s %9s %11s\n", "K", "op", "dots", "tensor", "gain", "GB/s",
              "Gop/s");
  for (const int n_rows : kRows) {
    shape.n_rows = n_rows;
    const edge::Status status = measure(backend, shape, weights, n_repeat);
    if (!status.is_ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      return edge_tools::kExitFailure;
    }
  }
  return 0;
}
