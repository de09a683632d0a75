// What the host decides for kernels: how rows share what attention reads, and which kernel makes a
// product.
#include <array>
#include <vector>

#include "backends/cuda/cuda_device.h"
#include "backends/gpu/attention_plan.h"
#include "backends/gpu/matmul_plan.h"
#include "backends/metal/metal_device.h"
#include "doctest/doctest.h"

using namespace edge;

namespace {

// Pairs of the first row and how many, flat.
std::vector<int> flat(const std::vector<gpu::RowGroup>& groups) {
  std::vector<int> numbers;
  for (const gpu::RowGroup& group : groups) {
    numbers.push_back(group.first);
    numbers.push_back(group.n);
  }
  return numbers;
}

std::string kernel_for(int64_t n_rows, const gpu::Device& device, const gpu::MatmulChoice& choice) {
  Tensor weight;
  weight.format = Format::kE4_16;
  weight.n_rows = 100;
  weight.n_cols = 64;
  const gpu::MatmulPlan plan = gpu::plan_matmul(weight, n_rows, device, choice);
  return plan.kernel + " " + std::to_string(plan.grid.x) + " " + std::to_string(plan.grid.y);
}

}  // namespace

TEST_CASE("rows share a group where they read the same slots") {
  const KvTable tables[2] = {};
  const std::array<int32_t, 2> tail = {3, 5};
  std::vector<RowInput> rows(9);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].slot = static_cast<int32_t>(i);
    rows[i].kv = {&tables[i < 6 ? 0 : 1]};
  }
  CHECK(flat(gpu::group_rows(rows, 0, 9, 4)) == std::vector<int>{0, 4, 4, 2, 6, 3});
  CHECK(flat(gpu::group_rows(rows, 5, 3, 4)) == std::vector<int>{5, 1, 6, 2});
  rows[7].tail = tail;
  CHECK(flat(gpu::group_rows(rows, 6, 3, 4)) == std::vector<int>{6, 1, 7, 1, 8, 1});
}

TEST_CASE("as many queries share keys as a kernel has room for") {
  std::vector<RowInput> rows(5);
  const auto plan = [&](int n_heads, int n_kv_heads, int head_dim) {
    AttentionShape shape;
    shape.n_heads = n_heads, shape.n_kv_heads = n_kv_heads, shape.head_dim = head_dim;
    const gpu::AttentionPlan made = gpu::plan_attention(rows, shape);
    return std::string(made.kernel) + " " + std::to_string(made.most_rows) + " " +
           std::to_string(made.n_parts);
  };
  CHECK(plan(32, 8, 128) == "attend_segment_8 2 1");
  CHECK(plan(8, 8, 64) == "attend_segment_8 5 1");
  CHECK(plan(20, 1, 128) == "attend_segment_8 1 3");
  CHECK(plan(4, 2, 256) == "attend_segment_4 2 1");
  CHECK(plan(3, 1, 320) == "attend_segment_1 1 3");
  rows.resize(1);
  CHECK(plan(8, 8, 64) == "attend_segment_1 1 1");
}

TEST_CASE("many rows go through matrices, and through those of floats where it is asked for") {
  const auto cuda = cuda::open_device().take();
  const auto metal = metal::open_device().take();
  gpu::MatmulChoice choice;
  CHECK(kernel_for(1, *cuda, choice) == "matmul_a8_1_E4_16 7 1");
  CHECK(kernel_for(8, *cuda, choice) == "matmul_a8_8_E4_16 7 1");
  CHECK(kernel_for(9, *cuda, choice) == "gemm_a8_16_E4_16 1 4");
  CHECK(kernel_for(20, *cuda, choice) == "gemm_a8_32_E4_16 1 4");
  CHECK(kernel_for(200, *cuda, choice) == "gemm_a8_64_E4_16 4 2");
  CHECK(kernel_for(200, *metal, choice) == "matmul_a8_8_E4_16 7 25");
  choice.allows_float = true;
  CHECK(kernel_for(40, *metal, choice) == "gemm_float_E4_16 2 4");
  CHECK(kernel_for(8, *metal, choice) == "matmul_a8_8_E4_16 7 1");
  choice.matrices_from = 4;
  CHECK(kernel_for(4, *cuda, choice) == "gemm_a8_16_E4_16 1 4");
}

TEST_CASE("many rows are of 8-bit floats, where the device is opened for them") {
  const auto fp8 = cuda::open_fp8_device().take();
  CHECK(kernel_for(8, *fp8, {}) == "matmul_a8_8_E4_16 7 1");
  CHECK(kernel_for(16, *fp8, {}) == "gemm_a8_16_E4_16 1 4");
  CHECK(kernel_for(17, *fp8, {}) == "gemm_fp8_32_E4_16 1 4");
  CHECK(kernel_for(200, *fp8, {}) == "gemm_fp8_128_E4_16 2 4");
  CHECK(kernel_for(17, *fp8, {.matrices_from = 30}) == "matmul_a8_8_E4_16 7 3");
}

TEST_CASE("experts with many rows each go through matrices") {
  const auto cuda = cuda::open_device().take();
  const auto metal = metal::open_device().take();
  Tensor stacked;
  stacked.format = Format::kE4_32;
  const auto plan = [&](const gpu::Device& device, int n_rows, int halves) {
    // Of eight experts, two for each row.
    const gpu::ExpertsPlan made =
        gpu::plan_experts(stacked, {10, n_rows, 2 * n_rows, 8, halves}, device, {});
    return made.product.kernel + " " + std::to_string(made.product.grid.x) + " " +
           std::to_string(made.product.grid.y) + " " + std::to_string(made.part_pairs) + " " +
           std::to_string(made.n_parts);
  };
  CHECK(plan(*cuda, 1, 1) == "experts_a8_1_E4_32 10 4 1 4");
  CHECK(plan(*cuda, 1, 2) == "experts_a8_2_E4_32 10 4 1 4");
  CHECK(plan(*cuda, 35, 1) == "experts_a8_8_E4_32 10 16 8 16");
  CHECK(plan(*cuda, 36, 1) == "gemm_experts_16_E4_32 12 5 16 12");
  CHECK(plan(*cuda, 18, 2) == "gemm_experts_16_E4_32 12 5 8 12");
  CHECK(plan(*cuda, 512, 1) == "gemm_experts_64_E4_32 24 3 64 24");
  CHECK(plan(*metal, 512, 1) == "experts_a8_8_E4_32 10 136 8 136");
}
