// Every matmul kernel equals the scalar one bit for bit, for every number of rows.
#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "quant/tile_weights.h"

namespace edge {
namespace {

// Activations are held row by row here; Panels are what kernels read.
struct Problem {
  Format format;
  int64_t n_strips, n_tiles;
  std::vector<uint8_t> strips;
  std::vector<int8_t> q;
  std::vector<float> d, f;
  std::vector<int32_t> bias;
};

struct Panels {
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int32_t> bias;

  Panels(const Problem& p, int row0, int n_rows) {
    for (int row = row0; row < row0 + n_rows; row += kMaxKRows) {
      for (int64_t i = 0; i < p.n_tiles; ++i) {
        for (int r = row; r < std::min(row + kMaxKRows, row0 + n_rows); ++r) {
          const auto block = static_cast<std::ptrdiff_t>(r * p.n_tiles + i);
          q.insert(q.end(), p.q.begin() + 32 * block, p.q.begin() + 32 * block + 32);
          d.push_back(p.d[static_cast<size_t>(block)]);
          bias.insert(bias.end(), p.bias.begin() + 2 * block, p.bias.begin() + 2 * block + 2);
        }
      }
    }
  }
};

// Finite f16 scales of both signs, a subnormal one among them.
void set_scales(uint16_t (&s)[16], std::mt19937& rng) {
  for (uint16_t& half : s) half = static_cast<uint16_t>(rng() & 0xBBFF);  // |s| < 2
  s[3] = 0x8001;
}
// All bytes of a strip but its scales may be anything.
void set_scales(Format format, uint8_t* strip, int64_t n_tiles, std::mt19937& rng) {
  if (format == Format::kL4_32) {
    auto* tiles = reinterpret_cast<TileL4_32*>(strip + kStripHeaderBytes);
    for (int64_t i = 0; i < n_tiles; ++i) set_scales(tiles[i].s, rng);
  }
  if (format == Format::kL8_32) {
    auto* tiles = reinterpret_cast<TileL8_32*>(strip + kStripHeaderBytes);
    for (int64_t i = 0; i < n_tiles; ++i) set_scales(tiles[i].s, rng);
    // Sums of the largest magnitude: -128, and 127, everywhere in a row.
    for (auto& quad : tiles[0].quads) std::fill(quad + 4 * 5, quad + 4 * 6, uint8_t{0});
    for (auto& quad : tiles[0].quads) std::fill(quad + 4 * 6, quad + 4 * 7, uint8_t{255});
  }
  if (format == Format::kK4_32) {
    auto* heads = reinterpret_cast<HeadK4_32*>(strip + kStripHeaderBytes);
    for (int64_t i = 0; i < (n_tiles + kHeadTiles - 1) / kHeadTiles; ++i) {
      set_scales(heads[i].d, rng);
      set_scales(heads[i].dmin, rng);
    }
  }
}

// Any byte is a valid weight or scale of the E formats, so weights are random bytes, extremes
// included; activations are random with rows of all +127 and all -127.
Problem make_problem(Format format, int64_t n_strips, int64_t n_tiles, uint32_t seed,
                     int n_rows = kMaxKRows) {
  std::mt19937 rng(seed);
  Problem p{format, n_strips, n_tiles, {}, {}, {}, {}, {}};
  const size_t strip_size = strip_bytes(format, n_tiles);
  p.strips.resize(strip_size * static_cast<size_t>(n_strips));
  for (uint8_t& byte : p.strips) byte = static_cast<uint8_t>(rng());
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t s = 0; s < n_strips; ++s) {
    uint8_t* strip = p.strips.data() + static_cast<size_t>(s) * strip_size;
    for (int row = 0; row < kTileRows; ++row) {
      const float d_row = format == Format::kF16 ? 1.0f : 0.01f * uniform(rng);
      std::memcpy(strip + 4 * row, &d_row, 4);
    }
    set_scales(format, strip, n_tiles, rng);
    if (format != Format::kF16) continue;
    for (size_t b = kStripHeaderBytes; b < strip_size; b += 2) {
      const uint16_t half = float_to_half(uniform(rng));
      std::memcpy(strip + b, &half, 2);
    }
  }
  const int64_t stride = n_tiles * kTileK;
  for (int r = 0; r < n_rows; ++r) {
    for (int64_t k = 0; k < stride; ++k) {
      const int8_t extreme = r % 5 == 3 ? 127 : -127;
      p.q.push_back(r % 5 >= 3 ? extreme
                               : static_cast<int8_t>(static_cast<int>(rng() % 255) - 127));
      p.f.push_back(uniform(rng));
    }
    for (int64_t i = 0; i < n_tiles; ++i) p.d.push_back(0.02f * uniform(rng));
    for (int64_t g = 0; g < 2 * n_tiles; ++g) {
      int32_t sum = 0;
      for (int64_t k = 16 * g; k < 16 * g + 16; ++k)
        sum += p.q[static_cast<size_t>(r * stride + k)];
      p.bias.push_back(-64 * sum);
    }
  }
  return p;
}

std::vector<float> run(MatmulFn fn, const Problem& p, int row0, int n_rows) {
  std::vector<float> y(static_cast<size_t>(n_rows * p.n_strips * kTileRows), -1.0f);
  const Panels panels(p, row0, n_rows);
  fn({p.strips.data(), p.n_strips, p.n_tiles, panels.q.data(), panels.d.data(), panels.bias.data(),
      p.f.data() + row0 * p.n_tiles * kTileK, n_rows, y.data(), p.n_strips * kTileRows});
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool runs_here(Isa isa) {
  for (const Isa supported : supported_isas()) {
    if (supported == isa) return true;
  }
  return false;
}

void check_matmul(const MatmulKernel& kernel) {
  const MatmulFn scalar = kernel_table(Isa::kScalar).matmul(kernel.format, kernel.act);
  for (const int64_t n_tiles : {1, 2, 9}) {
    const Problem p = make_problem(kernel.format, 3, n_tiles, 17u + static_cast<uint32_t>(n_tiles));
    for (int n_rows = 1; n_rows <= kMaxKRows; ++n_rows) {
      CAPTURE(std::string(kernel.name));
      CAPTURE(n_rows);
      CHECK(same_bits(run(kernel.fn, p, 0, n_rows), run(scalar, p, 0, n_rows)));
    }
  }
}

void check_gemm(const MatmulKernel& kernel) {
  CAPTURE(std::string(kernel.name));
  const MatmulFn scalar = kernel_table(Isa::kScalar).matmul(kernel.format, kernel.act);
  for (const int n_rows : {1, 15, 17, 32, 130}) {
    CAPTURE(n_rows);
    const auto n_tiles = 1 + n_rows % 20;  // within, at and across the tiles of one block
    const Problem p = make_problem(kernel.format, 3, n_tiles, 4, n_rows);
    const std::vector<float> y = run(kernel.fn, p, 0, n_rows);
    std::vector<float> expected;
    for (int row = 0; row < n_rows; row += kMaxKRows) {
      const std::vector<float> part = run(scalar, p, row, std::min(kMaxKRows, n_rows - row));
      expected.insert(expected.end(), part.begin(), part.end());
    }
    CHECK(same_bits(y, expected));
  }
}

TEST_CASE("every matmul kernel equals scalar bit for bit for 1 to 16 rows") {
  for (const MatmulKernel& kernel : all_matmul_kernels()) {
    if (runs_here(kernel.isa)) {
      check_matmul(kernel);
    } else {
      MESSAGE("SKIP " << std::string(kernel.name) << ": this CPU lacks it");
    }
  }
}

TEST_CASE("a row of a 16-row call equals the row alone") {
  for (const MatmulKernel& kernel : all_matmul_kernels()) {
    if (!runs_here(kernel.isa)) continue;
    const Problem p = make_problem(kernel.format, 2, 5, 99);
    const std::vector<float> together = run(kernel.fn, p, 0, kMaxKRows);
    for (int r = 0; r < kMaxKRows; ++r) {
      const size_t n = static_cast<size_t>(p.n_strips * kTileRows);
      const std::vector<float> row(together.begin() + static_cast<std::ptrdiff_t>(n) * r,
                                   together.begin() + static_cast<std::ptrdiff_t>(n) * (r + 1));
      CAPTURE(std::string(kernel.name));
      CHECK(same_bits(row, run(kernel.fn, p, r, 1)));
    }
  }
}

TEST_CASE("every gemm kernel equals the scalar kernel row by row, for any number of rows") {
  for (const MatmulKernel& kernel : all_gemm_kernels()) {
    if (runs_here(kernel.isa)) {
      check_gemm(kernel);
    } else {
      MESSAGE("SKIP " << std::string(kernel.name) << ": this CPU lacks it");
    }
  }
}

#if defined(__x86_64__) || defined(_M_X64)
// The sources of level avxvnni, compiled for AVX-512 VNNI and VL.
#define EDGE_TWINS(X)                                                 \
  X(kE2_16, matmul_e2_16_a8_avxvnni_twin, gemm_e2_16_a8_avxvnni_twin) \
  X(kE3_32, matmul_e3_32_a8_avxvnni_twin, gemm_e3_32_a8_avxvnni_twin) \
  X(kE4_16, matmul_e4_16_a8_avxvnni_twin, gemm_e4_16_a8_avxvnni_twin) \
  X(kE4_32, matmul_e4_32_a8_avxvnni_twin, gemm_e4_32_a8_avxvnni_twin) \
  X(kE6_16, matmul_e6_16_a8_avxvnni_twin, gemm_e6_16_a8_avxvnni_twin) \
  X(kE8_32, matmul_e8_32_a8_avxvnni_twin, gemm_e8_32_a8_avxvnni_twin) \
  X(kK4_32, matmul_k4_32_a8_avxvnni_twin, gemm_k4_32_a8_avxvnni_twin) \
  X(kL4_32, matmul_l4_32_a8_avxvnni_twin, gemm_l4_32_a8_avxvnni_twin) \
  X(kL8_32, matmul_l8_32_a8_avxvnni_twin, gemm_l8_32_a8_avxvnni_twin)
}  // namespace
#define EDGE_DECLARE(format, matmul, gemm) \
  void matmul(const MatmulArgs&);          \
  void gemm(const MatmulArgs&);
EDGE_TWINS(EDGE_DECLARE)
namespace {

TEST_CASE("the AVX-VNNI kernels equal scalar where AVX-512 VNNI runs their instructions") {
  if (!runs_here(Isa::kAvx512Vnni)) {
    MESSAGE("SKIP the twins of AVX-VNNI: this CPU lacks AVX-512 VNNI");
    return;
  }
#define EDGE_CHECK(format, matmul, gemm)                                    \
  check_matmul({Isa::kAvxVnni, Format::format, Act::kA8, matmul, #matmul}); \
  check_gemm({Isa::kAvxVnni, Format::format, Act::kA8, gemm, #gemm});
  EDGE_TWINS(EDGE_CHECK)
}
#endif

TEST_CASE("a level falls back only to kernels that its CPUs run") {
  const auto includes = [](Isa level, Isa other) {  // every CPU of `level` runs `other`
    const bool is_avx512 = level == Isa::kAvx512Vnni || level == Isa::kAvx512Bw;
    return level <= other && !(is_avx512 && other == Isa::kAvxVnni);
  };
  constexpr Isa kLevels[] = {
#define EDGE_ISA(id, name) Isa::id,
#include "kernels/isas.inc"
#undef EDGE_ISA
  };
  for (const Isa level : kLevels) {
    for (const MatmulKernel& kernel : all_matmul_kernels()) {
      const bool is_used = kernel_table(level).matmul(kernel.format, kernel.act) == kernel.fn;
      if (is_used) CHECK(includes(level, kernel.isa));
    }
    for (const MatmulKernel& kernel : all_gemm_kernels()) {
      const bool is_used = kernel_table(level).gemm(kernel.format, kernel.act) == kernel.fn;
      if (is_used) CHECK(includes(level, kernel.isa));
    }
  }
}

template <class Tile>
void check_against_doubles(Format format, Act act) {
  const Problem p = make_problem(format, 2, 9, 5);  // more tiles than a head has
  const std::vector<float> y = run(kernel_table(Isa::kScalar).matmul(format, act), p, 0, kMaxKRows);
  const size_t strip_size = strip_bytes(format, p.n_tiles);
  for (int r = 0; r < kMaxKRows; ++r) {
    for (int64_t out = 0; out < p.n_strips * kTileRows; ++out) {
      const int row = static_cast<int>(out % kTileRows);
      const uint8_t* strip = p.strips.data() + strip_size * static_cast<size_t>(out / kTileRows);
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < p.n_tiles * kTileK; ++k) {
        const uint8_t* address = strip + tiles_offset_of<Tile>(p.n_tiles) +
                                 sizeof(Tile) * static_cast<size_t>(k / kTileK);
        const auto& tile = tile_view<Tile>(packed_tile<Tile>(strip, address, k / kTileK));
        const size_t at = static_cast<size_t>(r * p.n_tiles * kTileK + k);
        const double a =
            act == Act::kF32
                ? static_cast<double>(p.f[at])
                : static_cast<double>(p.q[at]) *
                      static_cast<double>(p.d[static_cast<size_t>(r * p.n_tiles + k / kTileK)]);
        const double term =
            static_cast<double>(tile_value(tile, row, static_cast<int>(k % kTileK))) * a;
        sum += term;
        magnitude += std::abs(term);
      }
      const double d_row = static_cast<double>(reinterpret_cast<const float*>(strip)[row]);
      const double got =
          static_cast<double>(y[static_cast<size_t>(r * p.n_strips * kTileRows + out)]);
      CHECK(std::abs(got - sum * d_row) <= 1e-5 * magnitude * std::abs(d_row) + 1e-12);
    }
  }
}

TEST_CASE("the scalar matmul is the sum over weights that the format defines") {
  check_against_doubles<TileE2_16>(Format::kE2_16, Act::kA8);
  check_against_doubles<TileE3_32>(Format::kE3_32, Act::kA8);
  check_against_doubles<TileE4_16>(Format::kE4_16, Act::kA8);
  check_against_doubles<TileE4_32>(Format::kE4_32, Act::kA8);
  check_against_doubles<TileE6_16>(Format::kE6_16, Act::kA8);
  check_against_doubles<TileE8_32>(Format::kE8_32, Act::kA8);
  check_against_doubles<TileK4_32>(Format::kK4_32, Act::kA8);
  check_against_doubles<TileK4_32>(Format::kK4_32, Act::kF32);
  check_against_doubles<TileL4_32>(Format::kL4_32, Act::kA8);
  check_against_doubles<TileL4_32>(Format::kL4_32, Act::kF32);
  check_against_doubles<TileL8_32>(Format::kL8_32, Act::kA8);
  check_against_doubles<TileL8_32>(Format::kL8_32, Act::kF32);
  check_against_doubles<TileF16>(Format::kF16, Act::kF32);
  check_against_doubles<TileE2_16>(Format::kE2_16, Act::kF32);
  check_against_doubles<TileE3_32>(Format::kE3_32, Act::kF32);
  check_against_doubles<TileE4_16>(Format::kE4_16, Act::kF32);
  check_against_doubles<TileE4_32>(Format::kE4_32, Act::kF32);
  check_against_doubles<TileE6_16>(Format::kE6_16, Act::kF32);
  check_against_doubles<TileE8_32>(Format::kE8_32, Act::kF32);
}

bool has_kernel(Isa isa, Format format, Act act) {
  return kernel_table(isa).matmul(format, act) != nullptr;
}

TEST_CASE("every tiled format has a kernel at every level") {
  for (const Isa isa : supported_isas()) {
    for (const Format format :
         {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32, Format::kE6_16,
          Format::kE8_32, Format::kK4_32, Format::kL4_32, Format::kL8_32}) {
      CHECK(has_kernel(isa, format, Act::kA8));
      CHECK(has_kernel(isa, format, Act::kF32));
    }
    CHECK(has_kernel(isa, Format::kF16, Act::kF32));
    CHECK_FALSE(has_kernel(isa, Format::kF16, Act::kA8));
  }
}

}  // namespace
}  // namespace edge
