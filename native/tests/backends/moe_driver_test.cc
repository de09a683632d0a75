// Mixtures of experts: whatever the instruction set, the threads, the rows of a call and how they
// are grouped, a row gets what the words of docs/KERNELS.md say, each expert alone.
#include "backends/cpu/moe_driver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backends/cpu/act_rows.h"
#include "backends/cpu/activate.h"
#include "doctest/doctest.h"
#include "kernels/encode.h"

namespace edge {
namespace {

using Floats = std::vector<float>;

struct Case {
  const char* name;
  MoeShape shape;
  bool has_shared_gate;
  Format format;
  Act act;
};

// Widths are no multiples of 16 on purpose; a row of a strip that belongs to nobody is zero.
constexpr int64_t kModel = 88;
constexpr Case kCases[] = {
    {"like Mixtral", {4, 2, 100, 0, FfnAct::kSilu, true}, false, Format::kE4_16, Act::kA8},
    {"a gated shared expert", {6, 3, 40, 72, FfnAct::kSilu}, true, Format::kE8_32, Act::kA8},
    {"a shared expert", {5, 1, 33, 20, FfnAct::kGeluTanh}, false, Format::kE4_32, Act::kA8x2},
    {"all experts", {7, 7, 16, 0, FfnAct::kGelu, true}, false, Format::kF16, Act::kF32},
};

struct Matrix {
  std::vector<std::byte> bytes;
  Tensor tensor;
};

// [n][n_rows, n_cols], each of the n from a whole strip on.
Matrix stacked(Format format, Act act, int64_t n, int64_t n_rows, int64_t n_cols, uint32_t seed) {
  const int64_t n_padded = (n_rows + 15) / 16 * 16;
  std::mt19937 rng(seed);
  Floats values(static_cast<size_t>(n * n_padded * n_cols));
  for (int64_t row = 0; row < n * n_padded; ++row) {
    for (int64_t c = 0; c < n_cols; ++c) {
      const float value = static_cast<float>(rng() % 2001) * 1e-3f - 1.0f;
      values[static_cast<size_t>(row * n_cols + c)] = row % n_padded < n_rows ? value : 0.0f;
    }
  }
  Matrix m;
  m.tensor = {.format = format, .act = act, .n_rows = n * n_padded, .n_cols = n_cols};
  m.bytes.resize(
      tensor_bytes(format, static_cast<uint64_t>(n * n_padded), static_cast<uint64_t>(n_cols))
          .value());
  REQUIRE(encode_tensor(format, values.data(), n * n_padded, n_cols, nullptr, m.bytes, 1).is_ok());
  m.tensor.data = m.bytes.data();
  m.tensor.n_bytes = m.bytes.size();
  return m;
}

struct Layer {
  MoeShape shape;
  Matrix router, gate, up, down, shared_gate_in, shared_gate, shared_up, shared_down;
  MoeTensors tensors;

  explicit Layer(const Case& c) : shape(c.shape) {
    const int64_t n = shape.n_experts;
    router = stacked(Format::kF16, Act::kF32, 1, n, kModel, 1);
    router.tensor.n_rows = n;
    gate = stacked(c.format, c.act, n, shape.d_expert, kModel, 2);
    up = stacked(c.format, c.act, n, shape.d_expert, kModel, 3);
    down = stacked(c.format, c.act, n, kModel, shape.d_expert, 4);
    tensors.router = &router.tensor;
    tensors.experts = {&gate.tensor, &up.tensor, &down.tensor};
    if (shape.d_shared == 0) return;
    shared_gate = stacked(c.format, c.act, 1, shape.d_shared, kModel, 5);
    shared_up = stacked(c.format, c.act, 1, shape.d_shared, kModel, 6);
    shared_down = stacked(c.format, c.act, 1, kModel, shape.d_shared, 7);
    tensors.shared = {&shared_gate.tensor, &shared_up.tensor, &shared_down.tensor};
    if (!c.has_shared_gate) return;
    shared_gate_in = stacked(Format::kF16, Act::kF32, 1, 1, kModel, 8);
    tensors.shared_gate = &shared_gate_in.tensor;
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
};

// Activation rows in every form, with their memory.
struct Rows {
  std::vector<int8_t> q, q2;
  Floats d, d2, f;
  std::vector<int32_t> bias, bias2;
  ActRows act;

  Rows(int n_rows, int64_t n_cols) {
    act.set_cols((n_cols + 31) / 32 * 32);
    act.set_rows(n_rows);
    const auto n = static_cast<size_t>(n_rows * act.n_cols_padded);
    q.resize(n), q2.resize(2 * n), f.resize(n);
    d.resize(n / 32), d2.resize(n / 16);
    bias.resize(n / 16), bias2.resize(n / 8);
    act.f = f.data();
    act.a8.q = q.data(), act.a8.d = d.data(), act.a8.bias = bias.data();
    act.a8x2.q = q2.data(), act.a8x2.d = d2.data(), act.a8x2.bias = bias2.data();
  }
  void fill(const Floats& x, const ElementwiseKernels& ops) {
    const auto n_cols = static_cast<size_t>(x.size() / static_cast<size_t>(act.n_rows));
    for (int r = 0; r < act.n_rows; ++r) {
      float* row = act.f + r * act.n_cols_padded;
      std::copy_n(x.data() + static_cast<size_t>(r) * n_cols, n_cols, row);
      REQUIRE(write_act(ops, row, act.n_cols_padded, r, 0, {true, true, true}, act));
    }
  }
};

Floats random_rows(int n_rows) {
  std::mt19937 rng(9);
  std::normal_distribution<float> normal(0, 0.5f);
  Floats x(static_cast<size_t>(n_rows * kModel));
  for (float& value : x) value = normal(rng);
  return x;
}

struct Mixed {
  std::vector<int32_t> ids;
  Floats weights, y;
  std::vector<uint64_t> n_routed;
  bool is_finite = false;

  bool operator==(const Mixed& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
    };
    return ids == other.ids && n_routed == other.n_routed && same(weights, other.weights) &&
           same(y, other.y) && is_finite == other.is_finite;
  }
};

constexpr int64_t kStride = 96;

Mixed mixed(const Layer& layer, const Floats& x, Isa isa, int n_threads, int64_t max_pairs) {
  const KernelTable& kernels = kernel_table(isa);
  const int n_rows = static_cast<int>(x.size()) / static_cast<int>(kModel);
  const MoeShape& shape = layer.shape;
  Rows rows(n_rows, kModel), gathered(static_cast<int>(max_pairs), kModel),
      hidden(static_cast<int>(max_pairs), shape.d_expert), shared(n_rows, shape.d_shared);
  rows.fill(x, *kernels.elementwise);
  const auto n_pairs = static_cast<size_t>(n_rows * shape.n_used);
  Mixed out{std::vector<int32_t>(n_pairs), Floats(n_pairs),
            Floats(static_cast<size_t>(n_rows * kStride), 5.0f),
            std::vector<uint64_t>(static_cast<size_t>(shape.n_experts))};
  Floats logits(static_cast<size_t>(n_rows * ((shape.n_experts + 15) / 16 * 16)));
  Floats shared_weights(static_cast<size_t>(16 * n_rows));
  MoeRoutes routes{logits.data(), shared_weights.data(), out.ids.data(), out.weights.data(),
                   out.n_routed.data()};
  MoeBuffers buffers{max_pairs, gathered.act, hidden.act, shared.act};
  MatmulDriver matmul(kernels, n_threads);
  MoeDriver driver(kernels, matmul, n_threads);
  out.is_finite = driver.route(rows.act, layer.tensors, shape, routes);
  out.is_finite &=
      driver.run(rows.act, layer.tensors, shape, routes, buffers, out.y.data(), kStride);
  return out;
}

// y += weight * network(x) for one row, by scalar kernels alone.
void add_network(const Floats& x, const ExpertTensors& t, int64_t strip0_inner,
                 int64_t strip0_outer, int64_t d_inner, float weight, FfnAct act, float* y) {
  const KernelTable& scalar = kernel_table(Isa::kScalar);
  const MatmulDriver matmul(scalar, 1);
  Rows in(1, kModel), hidden(1, d_inner);
  in.fill(x, *scalar.elementwise);
  const int64_t n_inner = (d_inner + 15) / 16;
  Floats g(static_cast<size_t>(16 * n_inner)), u(g), out(kStride);
  matmul.run_strips(*t.gate, in.act, strip0_inner, n_inner, g.data(), 16 * n_inner);
  matmul.run_strips(*t.up, in.act, strip0_inner, n_inner, u.data(), 16 * n_inner);
  activate_row(scalar, act, g.data(), u.data(), 16 * n_inner, g.data());
  g.resize(static_cast<size_t>(d_inner));
  hidden.fill(g, *scalar.elementwise);
  matmul.run_strips(*t.down, hidden.act, strip0_outer, kStride / 16, out.data(), kStride);
  scalar.variants->add_scaled(out.data(), weight, y, kStride);
}

Mixed defined(const Layer& layer, const Floats& x) {
  const KernelTable& scalar = kernel_table(Isa::kScalar);
  const MatmulDriver matmul(scalar, 1);
  const MoeShape& shape = layer.shape;
  Mixed out{{}, {}, {}, std::vector<uint64_t>(static_cast<size_t>(shape.n_experts)), true};
  for (auto row = x.begin(); row != x.end(); row += kModel) {
    const Floats one(row, row + kModel);
    Rows in(1, kModel);
    in.fill(one, *scalar.elementwise);
    Floats p(32), g(16), y(kStride);
    matmul.run_strips(*layer.tensors.router, in.act, 0, layer.tensors.router->n_strips(), p.data(),
                      32);
    p.resize(static_cast<size_t>(shape.n_experts));
    scalar.variants->softmax(p.data(), shape.n_experts);
    std::vector<int32_t> ids;
    for (int i = 0; i < shape.n_used; ++i) {
      int32_t best = -1;
      for (int32_t e = 0; e < shape.n_experts; ++e) {
        if (std::count(ids.begin(), ids.end(), e) > 0) continue;
        if (best < 0 || p[static_cast<size_t>(e)] > p[static_cast<size_t>(best)]) best = e;
      }
      ids.push_back(best);
    }
    std::sort(ids.begin(), ids.end());
    Floats weights;
    for (const int32_t id : ids) weights.push_back(p[static_cast<size_t>(id)]);
    if (shape.normalize) scalar.variants->normalize(weights.data(), shape.n_used);
    const int64_t n_inner = (shape.d_expert + 15) / 16, n_outer = (kModel + 15) / 16;
    for (size_t i = 0; i < ids.size(); ++i) {
      add_network(one, layer.tensors.experts, ids[i] * n_inner, ids[i] * n_outer, shape.d_expert,
                  weights[i], shape.act, y.data());
      ++out.n_routed[static_cast<size_t>(ids[i])];
    }
    if (shape.d_shared > 0) {
      Floats gate(2);
      if (layer.tensors.shared_gate != nullptr) {
        matmul.run_strips(*layer.tensors.shared_gate, in.act, 0, 1, g.data(), 16);
        gate[0] = g[0];
        scalar.variants->softmax(gate.data(), 2);
      } else {
        gate[0] = 1;
      }
      add_network(one, layer.tensors.shared, 0, 0, shape.d_shared, gate[0], shape.act, y.data());
    }
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.weights.insert(out.weights.end(), weights.begin(), weights.end());
    out.y.insert(out.y.end(), y.begin(), y.end());
  }
  return out;
}

TEST_CASE("a mixture is each row's experts alone, on every level, with any threads and grouping") {
  for (const Case& c : kCases) {
    CAPTURE(c.name);
    const Layer layer(c);
    for (const int n_rows : {1, 3, 21}) {
      CAPTURE(n_rows);
      const Floats x = random_rows(n_rows);
      const Mixed expected = defined(layer, x);
      for (const Isa isa : supported_isas()) {
        CAPTURE(isa_name(isa));
        CHECK(mixed(layer, x, isa, 1, int64_t{n_rows} * c.shape.n_used) == expected);
        CHECK(mixed(layer, x, isa, 3, int64_t{n_rows} * c.shape.n_used) == expected);
      }
      // Groups of a few rows, down to one at a time.
      const Isa best = supported_isas().front();
      CHECK(mixed(layer, x, best, 2, c.shape.n_used) == expected);
      CHECK(mixed(layer, x, best, 2, 5 * c.shape.n_used) == expected);
    }
  }
}

TEST_CASE("equal shares go to the lower ids") {
  Layer layer(kCases[1]);
  std::fill(layer.router.bytes.begin(), layer.router.bytes.end(), std::byte{0});
  const Mixed out = mixed(layer, random_rows(2), supported_isas().front(), 1, 6);
  CHECK(out.ids == std::vector<int32_t>{0, 1, 2, 0, 1, 2});
  for (const float weight : out.weights) CHECK(weight == 1.0f / 6.0f);
  CHECK(out.n_routed == std::vector<uint64_t>{2, 2, 2, 0, 0, 0});
}

TEST_CASE("one expert may get all rows") {
  const Case c = {"", {4, 1, 48, 0, FfnAct::kSilu}, false, Format::kE4_16, Act::kA8};
  const Layer layer(c);
  Floats x;
  for (int r = 0; r < 40; ++r) {
    const Floats row = random_rows(1);
    x.insert(x.end(), row.begin(), row.end());
  }
  const Mixed expected = defined(layer, x);
  CHECK(*std::max_element(expected.n_routed.begin(), expected.n_routed.end()) == 40);
  for (const Isa isa : supported_isas()) CHECK(mixed(layer, x, isa, 3, 40) == expected);
}

TEST_CASE("a router or a gate that is not finite is told, and nothing is read out of bounds") {
  for (const bool in_router : {true, false}) {
    Layer layer(kCases[1]);
    Matrix& broken = in_router ? layer.router : layer.shared_gate_in;
    const uint16_t nan = 0x7e00;
    std::memcpy(broken.bytes.data() + kStripHeaderBytes, &nan, sizeof nan);
    const Mixed out = mixed(layer, random_rows(3), supported_isas().front(), 2, 9);
    CHECK_FALSE(out.is_finite);
    for (const int32_t id : out.ids) CHECK((id >= 0 && id < 6));
  }
}

TEST_CASE("shares add up to one and the shared gate is a sigmoid") {
  const VariantKernels& ops = *kernel_table(Isa::kScalar).variants;
  Floats x(100);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) - 100.0f;
  Floats p = x;
  ops.softmax(p.data(), 100);
  double total = 0, expected_total = 0;
  for (const float v : x) expected_total += std::exp(static_cast<double>(v) + 88);
  for (size_t i = 0; i < x.size(); ++i) {
    total += static_cast<double>(p[i]);
    const double expected = std::exp(static_cast<double>(x[i]) + 88) / expected_total;
    CHECK(static_cast<double>(p[i]) == doctest::Approx(expected).epsilon(1e-6));
  }
  CHECK(total == doctest::Approx(1).epsilon(1e-6));
  for (const float g : {-200.0f, -3.0f, 0.0f, 0.5f, 30.0f, 200.0f}) {
    float pair[2] = {g, 0};
    ops.softmax(pair, 2);
    CHECK(static_cast<double>(pair[0]) ==
          doctest::Approx(1 / (1 + std::exp(-static_cast<double>(g)))).epsilon(1e-6));
  }
}

}  // namespace
}  // namespace edge
