#include "float_products_check.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "ops.h"

namespace edge::test {
namespace {

struct FloatProducts {
  FloatProducts() { setenv("EDGELLM_FLOAT_PRODUCTS", "1", 1); }
  ~FloatProducts() { unsetenv("EDGELLM_FLOAT_PRODUCTS"); }
};

std::vector<float> outputs_of(const OpShape& shape, const OpWeights& weights,
                              std::unique_ptr<Backend> backend) {
  auto rig = OpRig::create(shape, weights, std::move(backend));
  REQUIRE(rig.status().message() == "");
  REQUIRE(run_ops(*rig.value()).status().message() == "");
  std::vector<float> outputs;
  for (int r = 0; r < shape.n_rows; ++r) {
    const float* row = rig.value()->delta_ + r * rig.value()->x_stride_;
    outputs.insert(outputs.end(), row, row + shape.d_model);
  }
  return outputs;
}

void check_near(const std::vector<float>& wanted, const std::vector<float>& found) {
  float largest = 0, difference = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    REQUIRE(std::isfinite(found[i]));
    largest = std::max(largest, std::abs(wanted[i]));
    difference = std::max(difference, std::abs(wanted[i] - found[i]));
  }
  CHECK(difference <= kFloatTolerance * largest);
  CHECK(difference > 0);
}

}  // namespace

void check_float_products(const MakeBackend& make, std::span<const Format> formats) {
  OpShape shape = {.d_model = 70,
                   .n_heads = 1,
                   .n_kv_heads = 1,
                   .head_dim = 24,
                   .d_ffn = 40,
                   .n_vocab = 20,
                   .n_rope = 16,
                   .n_rows = 35};
  for (const Format format : formats) {
    const std::string name(format_name(format));
    CAPTURE(name);
    shape.format = format;
    const OpWeights weights(shape);
    const auto wanted =
        outputs_of(shape, weights, create_cpu_backend(kernel_table(Isa::kScalar), 1));
    const FloatProducts asked;
    check_near(wanted, outputs_of(shape, weights, make()));
  }
}

}  // namespace edge::test
