#include "backends/gpu/matmul_plan.h"

#include <algorithm>
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

// So many rows of a step at least: what speculation puts in one for a text has fewer, so that it
// changes no token.
constexpr int64_t kFp8From = 17;

MatmulPlan of_fp8_matrices(const Tensor& weight, int64_t n_rows) {
  const GemmShape shape = n_rows <= 64 ? GemmShape{32, 2} : GemmShape{128, 2};
  return {name_of("gemm_fp8_" + std::to_string(shape.n_rows), weight),
          {groups_of(n_rows, shape.n_rows), groups_of(weight.n_strips(), shape.n_strips)},
          kGemmStripThreads * shape.n_strips,
          true};
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
  if (device.takes_fp8() && n_rows >= kFp8From * halves_of(weight)) {
    return of_fp8_matrices(weight, n_rows);
  }
  if (device.has_int8_matrices()) return of_int8_matrices(weight, n_rows);
  const bool is_float = device.has_float_matrices() && choice.allows_float;
  return is_float ? of_float_matrices(weight, n_rows) : of_dot_products(weight, n_rows);
}

ExpertsPlan plan_experts(const Tensor& stacked, const ExpertsShape& shape, const Device& device,
                         const MatmulChoice& choice) {
  // Of an expert, if all had as many.
  const int64_t n_rows = int64_t{shape.halves} * shape.n_pairs / shape.n_experts;
  const auto plan_of = [&](int at_once) {
    const int part_pairs = at_once / shape.halves;
    const int n_parts = shape.n_pairs / part_pairs + std::min(shape.n_experts, shape.n_pairs);
    return ExpertsPlan{{}, part_pairs, n_parts};
  };
  if (n_rows >= choice.matrices_from && device.has_int8_matrices() &&
      groups_of(shape.n_strips, 2) <= kMostGroups) {
    const GemmShape group = n_rows <= 16 ? GemmShape{16, 2} : GemmShape{64, 4};
    ExpertsPlan plan = plan_of(group.n_rows);
    plan.product = {name_of("gemm_experts_" + std::to_string(group.n_rows), stacked),
                    {plan.n_parts, groups_of(shape.n_strips, group.n_strips)},
                    kGemmStripThreads * group.n_strips};
    return plan;
  }
  // An expert has one row of a step of one row.
  const int at_once = shape.n_rows == 1 ? shape.halves : 8;
  ExpertsPlan plan = plan_of(at_once);
  plan.product = {name_of("experts_a8_" + std::to_string(at_once), stacked),
                  {shape.n_strips, plan.n_parts},
                  kMatmulThreads};
  return plan;
}

}  // namespace edge::gpu
