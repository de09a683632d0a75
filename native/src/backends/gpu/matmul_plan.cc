#include "backends/gpu/matmul_plan.h"

#include <cstdlib>
#include <string_view>

#include "backends/gpu/launcher.h"

namespace edge::gpu {
namespace {

constexpr int64_t kMostGroups = 65535;  // of a grid's y

std::string name_of(const std::string& prefix, const Tensor& weight) {
  return prefix + '_' + std::string(format_name(weight.format));
}

// Shapes of a group of gemm_a8. Few rows of activations want many groups, which read more of the
// weights at a time; many want each unpacked tile to serve as many as registers hold.
struct GemmShape {
  int n_rows, n_strips;
};
GemmShape gemm_shape(int64_t n_rows) {
  if (n_rows <= 16) return {16, 2};
  return n_rows <= 32 ? GemmShape{32, 2} : GemmShape{64, 4};
}

MatmulPlan of_int8_matrices(const Tensor& weight, int64_t n_rows) {
  const GemmShape shape = gemm_shape(n_rows);
  return {name_of("gemm_a8_" + std::to_string(shape.n_rows), weight),
          {groups_of(n_rows, shape.n_rows), groups_of(weight.n_strips(), shape.n_strips)},
          kGemmStripThreads * shape.n_strips};
}

MatmulPlan of_float_matrices(const Tensor& weight, int64_t n_rows) {
  return {name_of("gemm_float", weight),
          {groups_of(n_rows, kFloatRows), groups_of(weight.n_strips(), kFloatStrips)},
          kFloatThreads};
}

MatmulPlan of_dot_products(const Tensor& weight, int64_t n_rows) {
  const int at_once = n_rows <= 2 ? static_cast<int>(n_rows) : n_rows <= 4 ? 4 : 8;
  return {name_of("matmul_a8_" + std::to_string(at_once), weight),
          {weight.n_strips(), groups_of(n_rows, at_once)},
          kMatmulThreads};
}

}  // namespace

MatmulChoice matmul_choice() {
  MatmulChoice choice;
  const char* from = std::getenv("EDGELLM_GEMM_FROM");
  const int64_t set = from == nullptr ? 0 : std::strtoll(from, nullptr, 10);
  if (set > 0) choice.matrices_from = set;
  const char* floats = std::getenv("EDGELLM_FLOAT_PRODUCTS");
  choice.allows_float = floats != nullptr && std::string_view(floats) == "1";
  return choice;
}

MatmulPlan plan_matmul(const Tensor& weight, int64_t n_rows, const Device& device,
                       const MatmulChoice& choice) {
  if (n_rows < choice.matrices_from) return of_dot_products(weight, n_rows);
  if (groups_of(weight.n_strips(), 2) > kMostGroups) return of_dot_products(weight, n_rows);
  if (device.has_int8_matrices()) return of_int8_matrices(weight, n_rows);
  const bool is_float = device.has_float_matrices() && choice.allows_float;
  return is_float ? of_float_matrices(weight, n_rows) : of_dot_products(weight, n_rows);
}

}  // namespace edge::gpu
