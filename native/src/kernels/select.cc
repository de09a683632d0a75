// Which ISA runs, and the table of its kernels.
#include <cstdlib>
#include <string>

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/encode_kernels.h"
#include "kernels/gptq_kernels.h"
#include "kernels/kernels.h"
#include "kernels/variants.h"

namespace edge {

namespace {

constexpr struct {
  Isa isa;
  std::string_view name;
} kIsas[] = {
#define EDGE_ISA(id, name) {Isa::id, name},
#include "kernels/isas.inc"
#undef EDGE_ISA
};

bool is_supported(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vnni:
      return cpu_features().avx512vnni;
    case Isa::kAvx512Bw:
      return cpu_features().avx512bw;
    case Isa::kAvxVnni:
      return cpu_features().avxvnni;
    case Isa::kAvx2:
      return cpu_features().avx2;
    case Isa::kSse41:
      return cpu_features().sse41;
    case Isa::kNeonI8mm:
      return cpu_features().neon_i8mm;
    case Isa::kNeonDot:
      return cpu_features().neon_dot;
    case Isa::kNeon:
      return cpu_features().neon;
    case Isa::kScalar:
      return true;
  }
  return false;
}

Result<Isa> choose_isa() {
  const char* forced = std::getenv("EDGELLM_ISA");
  if (forced == nullptr || *forced == '\0') return supported_isas().front();
  std::string known;
  for (const auto& row : kIsas) {
    if (row.name == forced) {
      if (is_supported(row.isa)) return row.isa;
      return Status(Code::kCpuUnsupported, "EDGELLM_ISA=" + std::string(forced) +
                                               ": this CPU or operating system lacks it");
    }
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  return Status(Code::kIsaUnknown, "EDGELLM_ISA=" + std::string(forced) +
                                       " is not an instruction set; known: " + known);
}

KernelTable make_table(Isa isa) {
  switch (isa) {
#if defined(__x86_64__) || defined(_M_X64)
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Bw:
      return {isa,
              &kElementwise_x86_avx512bw,
              isa == Isa::kAvx512Vnni ? &kAttention_x86_avx512vnni : &kAttention_x86_avx512bw,
              &kEncode_x86_avx512bw,
              &kGptq_x86_avx512bw,
              &kVariants_x86_avx512bw};
    case Isa::kAvxVnni:
    case Isa::kAvx2:
      return {isa,
              &kElementwise_x86_avx2,
              &kAttention_x86_avx2,
              &kEncode_x86_avx2,
              &kGptq_x86_avx2,
              &kVariants_x86_avx2};
    case Isa::kSse41:
      return {isa,
              &kElementwise_x86_sse41,
              &kAttention_x86_sse41,
              &kEncode_scalar,  // conversion on such old machines: slow rather than large
              &kGptq_scalar,
              &kVariants_x86_sse41};
#elif defined(__aarch64__) || defined(_M_ARM64)
    case Isa::kNeonI8mm:  // only the integer matmuls and dot products differ
    case Isa::kNeonDot:
    case Isa::kNeon:
      return {isa,
              &kElementwise_arm_neon,
              isa == Isa::kNeon ? &kAttention_arm_neon : &kAttention_arm_neon_dot,
              &kEncode_arm_neon,
              &kGptq_arm_neon,
              &kVariants_arm_neon};
#endif
    default:
      return {Isa::kScalar,    &kElementwise_scalar, &kAttention_scalar,
              &kEncode_scalar, &kGptq_scalar,        &kVariants_scalar};
  }
}

}  // namespace

std::string_view isa_name(Isa isa) {
  for (const auto& row : kIsas) {
    if (row.isa == isa) return row.name;
  }
  return "unknown";
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (const auto& row : kIsas) {
    if (is_supported(row.isa)) isas.push_back(row.isa);
  }
  return isas;
}

Result<Isa> active_isa() {
  static const Result<Isa> chosen = choose_isa();
  return chosen;
}

const std::vector<MatmulKernel>& all_matmul_kernels() {
  static const std::vector<MatmulKernel> kernels = {
#define EDGE_MATMUL(isa, format, act, fn) {Isa::isa, Format::format, Act::act, fn, #fn},
#define EDGE_GEMM(isa, format, fn)
#include "kernels/kernels.inc"
#undef EDGE_GEMM
#undef EDGE_MATMUL
  };
  return kernels;
}

const std::vector<MatmulKernel>& all_gemm_kernels() {
  static const std::vector<MatmulKernel> kernels = {
#define EDGE_MATMUL(isa, format, act, fn)
#define EDGE_GEMM(isa, format, fn) {Isa::isa, Format::format, Act::kA8, fn, #fn},
#include "kernels/kernels.inc"
#undef EDGE_GEMM
#undef EDGE_MATMUL
  };
  return kernels;
}

namespace {

MatmulFn fastest(const std::vector<MatmulKernel>& kernels, Isa isa, Format format, Act act) {
  for (const MatmulKernel& kernel : kernels) {
    if (kernel.isa >= isa && kernel.format == format && kernel.act == act) return kernel.fn;
  }
  return nullptr;
}

}  // namespace

MatmulFn KernelTable::matmul(Format format, Act act) const {
  return fastest(all_matmul_kernels(), isa, format, act);
}

MatmulFn KernelTable::gemm(Format format, Act act) const {
  return fastest(all_gemm_kernels(), isa, format, act);
}

const KernelTable& kernel_table(Isa isa) {
  static const KernelTable tables[] = {
#define EDGE_ISA(id, name) make_table(Isa::id),
#include "kernels/isas.inc"
#undef EDGE_ISA
  };
  return tables[static_cast<size_t>(isa)];
}

const KernelTable& active_kernels() {
  const Result<Isa> isa = active_isa();
  return kernel_table(isa.is_ok() ? isa.value() : Isa::kScalar);
}

}  // namespace edge
