// edge_bench: prefill and decode speed of a model, medians over runs, as one JSON object on stdout.
// Prompts are fixed pseudo-random ids: speed does not depend on what they say.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "args.h"
#include "edgellm/engine.h"

namespace {

constexpr const char* kUsage =
    "edge_bench MODEL [-p PREFILL_TOKENS] [-n DECODE_TOKENS] [-r RUNS] [-t THREADS] "
    "[-s TEXTS_AT_ONCE] [--backend cpu|cuda|metal|vulkan]";
constexpr double kNoBudgetMs = 1e12;  // steps as long as the model takes them

struct Options {
  int n_prefill = 512;
  int n_decode = 128;
  int n_runs = 5;
  int n_streams = 1;
  edgellm::LoadOptions load{.speculate = edgellm::Speculate::kOff};
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<int32_t> prompt_ids(int n, int n_vocab) {
  std::vector<int32_t> ids;
  uint32_t state = 1;
  for (int i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(n_vocab)));
  }
  return ids;
}

double tokens_per_s(int64_t n_tokens, double ms) {
  return static_cast<double>(n_tokens) * 1000 / std::max(ms, 1e-6);
}

// Of all texts together, while all of them decode: tokens per second of one run.
double run_streams(const edgellm::Model& model, const Options& options) {
  std::vector<edgellm::Session> sessions;
  std::vector<const edgellm::Session*> pointers;
  const std::vector<edgellm::SamplerParams> params(1);
  for (int i = 0; i < options.n_streams; ++i) {
    sessions.emplace_back(model, options.n_prefill + options.n_decode);
    std::vector<int32_t> prompt = prompt_ids(options.n_prefill, model.info().n_vocab);
    prompt[0] = i % model.info().n_vocab;  // nothing is known of it
    sessions.back().append(prompt);
    sessions.back().run(kNoBudgetMs);
  }
  for (const edgellm::Session& session : sessions) pointers.push_back(&session);
  const std::vector<const edgellm::SamplerParams*> all_params(sessions.size(), params.data());
  const std::vector<int64_t> n_prompts(sessions.size(), options.n_prefill);
  const auto start = std::chrono::steady_clock::now();
  for (int step = 0; step < options.n_decode; ++step) {
    const auto tokens = edgellm::Session::sample_together(pointers, all_params, n_prompts);
    std::vector<edgellm::SessionRun> runs;
    for (size_t i = 0; i < sessions.size(); ++i) {
      const int32_t id = tokens[i].value().id;
      sessions[i].append({&id, 1});
      runs.push_back({.session = &sessions[i]});
    }
    edgellm::Session::run_together(runs, kNoBudgetMs);
  }
  const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
  return tokens_per_s(int64_t{options.n_streams} * options.n_decode, ms.count());
}

int bench(const std::string& path, const Options& options) {
  const edgellm::Model model = edgellm::Model::load(path, options.load);
  const edgellm::ModelInfo& info = model.info();
  const std::vector<int32_t> prompt = prompt_ids(options.n_prefill, info.n_vocab);
  edgellm::Session session(model, options.n_prefill + options.n_decode);
  std::vector<double> prefill, decode;
  // One run more than asked for: the first one reads the file and is not counted.
  for (int run = 0; run <= options.n_runs; ++run) {
    session.rewind(0);
    const edgellm::SessionStats start = session.stats();
    session.append(prompt);
    session.run(kNoBudgetMs);
    for (int i = 0; i < options.n_decode; ++i) {
      const int32_t id = session.sample({}).id;
      session.append({&id, 1});
      session.run(kNoBudgetMs);
    }
    const edgellm::SessionStats end = session.stats();
    if (run == 0) continue;
    prefill.push_back(tokens_per_s(end.n_prefill_tokens - start.n_prefill_tokens,
                                   end.prefill_ms - start.prefill_ms));
    decode.push_back(
        tokens_per_s(end.n_decode_tokens - start.n_decode_tokens, end.decode_ms - start.decode_ms));
  }
  double streams = median(decode);
  if (options.n_streams > 1) {
    std::vector<double> runs;
    for (int run = 0; run < options.n_runs; ++run) runs.push_back(run_streams(model, options));
    streams = median(runs);
  }
  const double file_gb = static_cast<double>(info.file_bytes) * 1e-9;
  std::printf(
      "{\"backend\": \"%s\", \"prefill_tokens\": %d, \"decode_tokens\": %d, \"runs\": %d, "
      "\"threads\": %d, "
      "\"isa\": \"%s\", \"prefill_tokens_per_s\": %.2f, \"decode_tokens_per_s\": %.2f, "
      "\"streams\": %d, \"streams_tokens_per_s\": %.2f, "
      "\"decode_gb_per_s\": %.3f, \"load_ms\": %.2f, \"file_bytes\": %llu, "
      "\"peak_rss_bytes\": %llu}\n",
      info.backend.c_str(), options.n_prefill, options.n_decode, options.n_runs, info.n_threads,
      edgellm::active_isa().c_str(), median(prefill), median(decode), options.n_streams, streams,
      median(decode) * file_gb, info.load_ms, static_cast<unsigned long long>(info.file_bytes),
      static_cast<unsigned long long>(edgellm::memory_figures().peak_rss_bytes));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  Options options;
  args.number("-p", options.n_prefill);
  args.number("-n", options.n_decode);
  args.number("-r", options.n_runs);
  args.number("-t", options.load.n_threads);
  args.number("-s", options.n_streams);
  args.text("--backend", options.load.backend);
  const auto words = args.positional(1, kUsage);
  if (!words || options.n_prefill < 1 || options.n_decode < 0 || options.n_runs < 1 ||
      options.n_streams < 1) {
    if (words) std::fprintf(stderr, "usage: %s\n", kUsage);
    return edge_tools::kExitUsage;
  }
  try {
    return bench((*words)[0], options);
  } catch (const edgellm::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), edgellm::sanitize(error.what()).c_str());
    return edge_tools::kExitFailure;
  }
}
