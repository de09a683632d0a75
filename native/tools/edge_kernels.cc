// edge_kernels: speed of the matmul and attention kernels on data in cache, one thread: what their
// inner loops can do, apart from memory, threads and the rest of the model. One JSON object per
// line.
//
// t(K), the time of a call with K rows, is close to t_unpack + K * t_mac; both are fitted over K =
// 1..16 and given per tile. Times are the best of many calls: the machine can only make them
// longer. --compiler prints what compiled the kernels: instruction counts (benchmarks/guard.py) are
// comparable for one compiler only.
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "args.h"
#include "base/os.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "quant/tiles.h"

namespace {

constexpr const char* kUsage =
    "edge_kernels FORMAT [--columns N] [--strips N] [--rows K] [--calls N]\n"
    "edge_kernels attention_KV [--positions N] [--head-dim N] [--queries K] [--calls N]\n"
    "edge_kernels --compiler\n"
    "  FORMAT: E2_16, E3_32, E4_16, E4_32, E6_16, E8_32, K4_32, L4_32 or L8_32; the level is the "
    "best one, or EDGELLM_ISA\n"
    "  KV: F16, K8V8, K8V4, K6V4\n"
    "  --rows K: that many rows only; above 16 the kernel of prefill\n"
    "  --calls N: of every measurement (default 200)\n"
    "  --positions N: of one key-value head (default 1024, in cache; 262144 is not)";

#if defined(__x86_64__) || defined(_M_X64)
#define EDGE_TARGET " for x86-64"
#else
#define EDGE_TARGET " for another processor"
#endif
#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__ EDGE_TARGET;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "gcc " __VERSION__ EDGE_TARGET;
#else
constexpr const char* kCompiler = "another compiler" EDGE_TARGET;
#endif

struct Options {
  int64_t n_columns = 1024;
  int64_t n_strips = 8;
  int n_rows = 0;
  int n_calls = 200;
  int n_positions = 1024;
  int head_dim = 64;
  int n_queries = 4;
};

// Weights and activations of zeros: speed does not depend on their values.
struct Problem {
  Problem(edge::Format format, const Options& options, int n_rows)
      : n_tiles((options.n_columns + edge::kTileK - 1) / edge::kTileK),
        n_strips(options.n_strips),
        strips(edge::strip_bytes(format, n_tiles) * static_cast<size_t>(n_strips)),
        q(static_cast<size_t>(n_rows * n_tiles * edge::kTileK)),
        d(static_cast<size_t>(n_rows * n_tiles)),
        bias(2 * d.size()),
        y(static_cast<size_t>(n_rows * n_strips * edge::kTileRows)) {}

  edge::MatmulArgs args(int n_rows) {
    edge::MatmulArgs args;
    args.strips = strips.data();
    args.n_strips = n_strips;
    args.n_tiles = n_tiles;
    args.q = q.data();
    args.d = d.data();
    args.bias = bias.data();
    args.n_rows = n_rows;
    args.y = y.data();
    args.y_stride = n_strips * edge::kTileRows;
    return args;
  }

  int64_t n_tiles, n_strips;
  std::vector<uint8_t> strips;
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int32_t> bias;
  std::vector<float> y;
};

template <class F>
double best_ns(F&& work, int n_calls) {
  int64_t best = INT64_MAX;
  for (int call = 0; call < n_calls; ++call) {
    const int64_t start = edge::monotonic_ns();
    work();
    best = std::min(best, edge::monotonic_ns() - start);
  }
  return static_cast<double>(best);
}

double measure(edge::Format format, const Options& options, int n_rows) {
  const edge::KernelTable& table = edge::active_kernels();
  edge::MatmulFn fn = table.matmul(format, edge::Act::kA8);
  const char* kind = "matmul";
  if (n_rows > edge::kMaxKRows) {
    fn = table.gemm(format, edge::Act::kA8);
    kind = "gemm";
    if (fn == nullptr) return 0;
  }
  Problem problem(format, options, n_rows);
  const edge::MatmulArgs args = problem.args(n_rows);
  const double ns = best_ns([&] { fn(args); }, options.n_calls);
  const double n_weights =
      static_cast<double>(problem.n_strips * problem.n_tiles) * edge::kTileRows * edge::kTileK;
  std::printf(
      "{\"isa\": \"%s\", \"kernel\": \"%s\", \"rows\": %d, \"ns_per_tile\": %.3f, "
      "\"gmac_per_s\": %.1f, \"weights_gb_per_s\": %.2f}\n",
      std::string(edge::isa_name(table.isa)).c_str(), kind, n_rows,
      ns / static_cast<double>(problem.n_strips * problem.n_tiles), n_weights * n_rows / ns,
      static_cast<double>(problem.strips.size()) / ns);
  return ns / static_cast<double>(problem.n_strips * problem.n_tiles);
}

// Least squares of t(K) = t_unpack + K * t_mac.
void print_fit(const std::vector<double>& ns_by_rows) {
  const double n = static_cast<double>(ns_by_rows.size());
  double sum_k = 0, sum_t = 0, sum_kk = 0, sum_kt = 0;
  for (size_t i = 0; i < ns_by_rows.size(); ++i) {
    const double k = static_cast<double>(i + 1);
    sum_k += k;
    sum_t += ns_by_rows[i];
    sum_kk += k * k;
    sum_kt += k * ns_by_rows[i];
  }
  const double slope = (n * sum_kt - sum_k * sum_t) / (n * sum_kk - sum_k * sum_k);
  std::printf("{\"t_unpack_ns_per_tile\": %.3f, \"t_mac_ns_per_tile\": %.3f}\n",
              (sum_t - slope * sum_k) / n, slope);
}

// Keys and values of one head, page after page, and the queries that share them.
struct AttentionProblem {
  AttentionProblem(edge::KvFormat format_, const Options& options)
      : format(format_),
        page_bytes(edge::kv_head_bytes(format_, options.head_dim)),
        n_pages((options.n_positions + edge::kPageTokens - 1) / edge::kPageTokens),
        stride((page_bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes),
        memory(stride * static_cast<size_t>(n_pages) + kCacheLineBytes),
        q(static_cast<size_t>(options.n_queries * options.head_dim)),
        o(q.size()),
        q8(q.size() + 4),
        q8_scales(static_cast<size_t>(options.head_dim)),
        q8_sums(q8_scales.size()) {
    // Written once: untouched memory would all be the one zero page of the OS.
    std::fill(memory.begin(), memory.end(), uint8_t{0x11});
    const size_t unaligned = reinterpret_cast<uintptr_t>(memory.data()) % kCacheLineBytes;
    for (int page = 0; page < n_pages; ++page) {
      pages.push_back(memory.data() + kCacheLineBytes - unaligned +
                      stride * static_cast<size_t>(page));
    }
  }

  void run(const Options& options) {
    const edge::AttentionKernels& kernels = *edge::active_kernels().attention;
    for (int first = 0; first < options.n_positions; first += edge::kSegmentTokens) {
      edge::AttentionSegmentArgs args;
      args.pages = pages.data() + first / edge::kPageTokens;
      args.kv = edge::kv_head(format, options.head_dim);
      args.scale = 1;
      args.n_queries = options.n_queries;
      for (int i = 0; i < options.n_queries; ++i) {
        args.q[i] = q.data() + i * options.head_dim;
        args.q8[i] = {q8.data() + i * options.head_dim, q8_scales.data(), q8_sums.data()};
        args.o[i] = o.data() + i * options.head_dim;
        args.n_visible[i] = std::min(edge::kSegmentTokens, options.n_positions - first);
      }
      kernels.segment(args);
    }
  }

  static constexpr size_t kCacheLineBytes = 64;
  edge::KvFormat format;
  size_t page_bytes;
  int n_pages;
  size_t stride;  // from page to page, which begin at cache lines as those of models do
  std::vector<uint8_t> memory;
  std::vector<const uint8_t*> pages;
  std::vector<float> q, o;
  std::vector<int8_t> q8;
  std::vector<float> q8_scales;
  std::vector<int32_t> q8_sums;
};

void measure_attention(edge::KvFormat format, const Options& options) {
  AttentionProblem problem(format, options);
  const double ns = best_ns([&] { problem.run(options); }, options.n_calls);
  const double n_keys = options.n_positions;
  std::printf(
      "{\"isa\": \"%s\", \"kernel\": \"attention\", \"queries\": %d, \"ns_per_position\": %.3f, "
      "\"gmac_per_s\": %.1f, \"kv_gb_per_s\": %.2f}\n",
      std::string(edge::isa_name(edge::active_kernels().isa)).c_str(), options.n_queries,
      ns / n_keys, 2 * n_keys * options.head_dim * options.n_queries / ns,
      static_cast<double>(problem.page_bytes) / edge::kPageTokens * n_keys / ns);
}

void measure_all(edge::Format format, const Options& options) {
  std::vector<double> ns_by_rows;
  for (int k = 1; k <= edge::kMaxKRows; ++k) ns_by_rows.push_back(measure(format, options, k));
  print_fit(ns_by_rows);
  for (const int n_rows : {32, 128, 512}) measure(format, options, n_rows);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--compiler") {
    std::puts(kCompiler);
    return 0;
  }
  edge_tools::Args args(argc, argv);
  Options options;
  args.number("--columns", options.n_columns);
  args.number("--strips", options.n_strips);
  args.number("--rows", options.n_rows);
  args.number("--calls", options.n_calls);
  args.number("--positions", options.n_positions);
  args.number("--head-dim", options.head_dim);
  args.number("--queries", options.n_queries);
  const auto words = args.positional(1, kUsage);
  if (!words) return edge_tools::kExitUsage;
  const edge::KvFormat* kv = nullptr;
  for (const auto& row : edge::kKvFormats) {
    if ((*words)[0] == std::string("attention_") + row.name) kv = &row.format;
  }
  const auto format = edge::format_from_name((*words)[0]);
  const bool are_sizes_sane =
      options.n_columns >= 1 && options.n_columns <= (1 << 20) && options.n_strips >= 1 &&
      options.n_strips <= (1 << 16) && options.n_rows >= 0 && options.n_rows <= 4096 &&
      options.n_calls >= 1 && options.n_positions >= 1 && options.n_positions <= (1 << 20) &&
      options.head_dim >= 1 && options.head_dim <= edge::kMaxHeadDim && options.n_queries >= 1 &&
      options.n_queries <= edge::kMaxQueries;
  const bool has_kernel =
      format && edge::active_kernels().matmul(*format, edge::Act::kA8) != nullptr;
  if (!(has_kernel || kv != nullptr) || !are_sizes_sane) {
    std::fprintf(stderr, "usage: %s\n", kUsage);
    return edge_tools::kExitUsage;
  }
  if (kv != nullptr) {
    measure_attention(*kv, options);
  } else if (options.n_rows > 0) {
    measure(*format, options, options.n_rows);
  } else {
    measure_all(*format, options);
  }
  return 0;
}
