// edge_run: continues a prompt. The smallest program on the public interface; text on stdout, what
// it cost on stderr.
#include <algorithm>
#include <cstdio>
#include <string>

#include "args.h"
#include "edgellm/engine.h"

namespace {

constexpr const char* kUsage =
    "edge_run MODEL PROMPT [-n TOKENS] [-t THREADS] [-c CONTEXT] [--temp T] [--top-k K]\n"
    "                [--top-p P] [--min-p P] [--seed S] [--special]\n"
    "                [--backend cpu|cuda|metal|vulkan]";

struct Options {
  int n_tokens = 128;
  int n_ctx = 0;
  bool special = false;  // special-token strings in the prompt become special tokens
  edgellm::LoadOptions load;
  edgellm::SamplerParams sampling;
};

void print(const std::string& piece) {
  const std::string text = edgellm::sanitize(piece);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void print_costs(const edgellm::Model& model, const edgellm::SessionStats& stats) {
  const auto per_second = [](int64_t n, double ms) {
    return ms > 0 ? static_cast<double>(n) * 1000 / ms : 0;
  };
  const double mib = 1.0 / (1 << 20);
  std::fprintf(
      stderr,
      "\nload %.1f ms | prefill %lld tokens, %.1f/s | decode %lld tokens, %.1f/s | file %.1f MiB, "
      "KV %.1f MiB, peak RSS %.1f MiB\n",
      model.info().load_ms, static_cast<long long>(stats.n_prefill_tokens),
      per_second(stats.n_prefill_tokens, stats.prefill_ms),
      static_cast<long long>(stats.n_decode_tokens),
      per_second(stats.n_decode_tokens, stats.decode_ms),
      static_cast<double>(model.info().file_bytes) * mib, static_cast<double>(stats.kv_bytes) * mib,
      static_cast<double>(edgellm::memory_figures().peak_rss_bytes) * mib);
}

int run(const std::string& path, const std::string& prompt, const Options& options) {
  const edgellm::Model model = edgellm::Model::load(path, options.load);
  const std::optional<edgellm::Tokenizer> tokenizer = model.tokenizer();
  if (!tokenizer) {
    std::fprintf(stderr, "the file has no tokenizer\n");
    return edge_tools::kExitFailure;
  }
  edgellm::Session session(model, options.n_ctx);
  session.append(tokenizer->encode(prompt, options.special));
  edgellm::StreamDecoder decoder(*tokenizer);
  const std::vector<int32_t>& eos_ids = model.info().eos_ids;
  for (int i = 0; i < options.n_tokens; ++i) {
    while (!session.run()) {
    }
    const int32_t id = session.sample(options.sampling).id;
    if (std::find(eos_ids.begin(), eos_ids.end(), id) != eos_ids.end()) break;
    print(decoder.push(id));
    if (session.n_tokens() == session.n_ctx()) {
      std::fprintf(stderr, "\n[the context of %d tokens is full]", session.n_ctx());
      break;
    }
    session.append({&id, 1});
  }
  print(decoder.flush());
  print_costs(model, session.stats());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  Options options;
  args.number("-n", options.n_tokens);
  args.number("-t", options.load.n_threads);
  args.text("--backend", options.load.backend);
  args.number("-c", options.n_ctx);
  args.number("--temp", options.sampling.temperature);
  args.number("--top-k", options.sampling.top_k);
  args.number("--top-p", options.sampling.top_p);
  args.number("--min-p", options.sampling.min_p);
  args.number("--seed", options.sampling.seed);
  options.special = args.flag("--special");
  const auto words = args.positional(2, kUsage);
  if (!words) return edge_tools::kExitUsage;
  try {
    options.sampling.check();
    return run((*words)[0], (*words)[1], options);
  } catch (const edgellm::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), edgellm::sanitize(error.what()).c_str());
    return edge_tools::kExitFailure;
  }
}
