// edge_reads: decode of one token against plain reads of the same mapped file, taking turns in one
// process, so that a slow spell of the machine hits both. A share of 1 is decode at the speed of
// its reads. One JSON object on stdout; the ratio is taken pair by pair.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "args.h"
#include "base/os.h"
#include "edgellm/engine.h"
#include "kernels/kernels.h"

namespace {

constexpr const char* kUsage = "edge_reads MODEL [-n PAIRS] [-t THREADS]";
constexpr double kNoBudgetMs = 1e12;
constexpr int32_t kSomeId = 7;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int race(const std::string& path, int n_pairs, const edgellm::LoadOptions& options) {
  const edgellm::Model model = edgellm::Model::load(path, options);
  edge::Result<edge::MappedFile> file = edge::MappedFile::open(path);
  if (!file.is_ok()) {
    std::fprintf(stderr, "%s\n", file.status().message().c_str());
    return edge_tools::kExitFailure;
  }
  const int n_threads = model.info().n_threads;
  edgellm::Session session(model, n_pairs + 2);
  const auto token_s = [&] {
    session.append({&kSomeId, 1});
    const int64_t start_ns = edge::monotonic_ns();
    session.run(kNoBudgetMs);
    return static_cast<double>(edge::monotonic_ns() - start_ns) * 1e-9;
  };
  token_s();  // reads the file
  std::vector<double> decode, reads, shares;
  for (int i = 0; i < n_pairs; ++i) {
    decode.push_back(token_s());
    reads.push_back(edge::read_all_s(file.value().bytes(), n_threads));
    shares.push_back(reads.back() / decode.back());
  }
  const double file_bytes = static_cast<double>(file.value().bytes().size());
  std::printf(
      "{\"pairs\": %d, \"threads\": %d, \"isa\": \"%s\", \"decode_ms\": %.3f, \"reads_ms\": %.3f, "
      "\"reads_gb_per_s\": %.2f, \"share_of_reads\": %.4f}\n",
      n_pairs, n_threads, edgellm::active_isa().c_str(), median(decode) * 1e3, median(reads) * 1e3,
      file_bytes / median(reads) * 1e-9, median(shares));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  int n_pairs = 60;
  edgellm::LoadOptions options;
  args.number("-n", n_pairs);
  args.number("-t", options.n_threads);
  const auto words = args.positional(1, kUsage);
  if (!words || n_pairs < 1 || n_pairs > 100000) {
    if (words) std::fprintf(stderr, "usage: %s\n", kUsage);
    return edge_tools::kExitUsage;
  }
  try {
    return race((*words)[0], n_pairs, options);
  } catch (const edgellm::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), edgellm::sanitize(error.what()).c_str());
    return edge_tools::kExitFailure;
  }
}
