// The kernel contract: which functions exist, what they compute, and how one is chosen.
//
// kernels.inc is the one list of matmul kernels; it declares, selects, tests and benches them.
// Every kernel equals the scalar one bit for bit (docs/KERNELS.md gives the sums). Kernels never
// check their arguments; callers do. Knows nothing of models, files or threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/matmul_args.h"
#include "tensor/tensor.h"

namespace edge {

struct ElementwiseKernels;
struct AttentionKernels;
struct EncodeKernels;
struct GptqKernels;
struct VariantKernels;

// Instruction-set levels, best first. EDGE_ISA(enumerator, name)
enum class Isa : uint8_t {
#define EDGE_ISA(id, name) id,
#include "kernels/isas.inc"
#undef EDGE_ISA
};
std::string_view isa_name(Isa isa);
std::vector<Isa> supported_isas();  // by this CPU and OS, best first; scalar always last
// The level in use: the best supported one, or what EDGELLM_ISA names (kIsaUnknown if there is no
// such level, kCpuUnsupported if this CPU lacks it). Decided once per process.
Result<Isa> active_isa();

struct MatmulKernel {
  Isa isa;
  Format format;
  Act act;
  MatmulFn fn;
  std::string_view name;
};
// Every kernel compiled in, in kernels.inc order.
const std::vector<MatmulKernel>& all_matmul_kernels();
const std::vector<MatmulKernel>& all_gemm_kernels();

// Everything one ISA offers; chosen once, then plain function pointers.
struct KernelTable {
  Isa isa = Isa::kScalar;
  const ElementwiseKernels* elementwise = nullptr;
  const AttentionKernels* attention = nullptr;
  const EncodeKernels* encode = nullptr;
  const GptqKernels* gptq = nullptr;
  const VariantKernels* variants = nullptr;
  // The fastest kernel of this level or a lower one; never null for a tiled format.
  MatmulFn matmul(Format format, Act act) const;
  // The same for more rows than kMaxKRows; null where calling matmul() panel by panel is as good.
  MatmulFn gemm(Format format, Act act) const;
};
const KernelTable& kernel_table(Isa isa);
// The table of active_isa(); scalar if EDGELLM_ISA was refused (the refusal is reported at load).
const KernelTable& active_kernels();

// int8 multiply-accumulates per second of the active level's E8_32 kernel for many rows (where it
// has none, for 16) on data in cache.
double measure_int8_macs_per_s(int n_threads);

// Seconds that plain reads of all whole 4 MiB of `bytes` take.
double read_all_s(std::span<const std::byte> bytes, int n_threads);

// Bytes per second of plain reads of memory outside any cache. kOutOfMemory without 256 MiB.
Result<double> measure_read_bytes_per_s(int n_threads);

}  // namespace edge
