// What llama.cpp's n-gram speculation makes of given texts, for benchmarks/vs_llama_lookup.py,
// which compiles this against a built tree of llama.cpp and says how.
//
//   llama_ngrams MODEL.gguf THREADS MODE...      MODE: plain, ngram-cache, ngram-simple, ..
//
// Reads texts from stdin, one a line: the number of ids that are prompt, then all ids. The loop is
// that of its speculative-simple example, but the token that a row would be sampled to is the
// text's: every row is computed, and a draft is right where the text says the same. For each text
// it prints, for each mode, tokens, steps, rows and milliseconds without the prompt. The modes take
// turns, a block of tokens each, on copies of the prompt's keys and values.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "common.h"
#include "llama.h"
#include "speculative.h"

namespace {

constexpr int kContext = 4096;  // of each mode
constexpr int kMostDrafted = 64;
constexpr size_t kBlock = 32;  // tokens

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "llama_ngrams: %s\n", what.c_str());
  std::exit(1);
}

double now_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

// One way to decode a text, in a sequence of its own.
struct Mode {
  std::string name;
  llama_seq_id sequence = 0;
  common_params_speculative params = {};
  common_speculative* drafter = nullptr;
  llama_tokens done = {};  // in the context
  size_t at = 0;           // token of the text that the next step reads
  int n_steps = 0;
  int n_rows = 0;
  double ms = 0;
};

void begin(Mode& mode, const llama_tokens& prompt) {
  mode.done.assign(prompt.begin(), prompt.end() - 1);
  mode.at = prompt.size() - 1;
  mode.n_steps = mode.n_rows = 0;
  mode.ms = 0;
  common_speculative_free(mode.drafter);
  mode.drafter = nullptr;
  if (mode.name == "plain") return;
  mode.params.types = common_speculative_types_from_names({mode.name});
  mode.drafter = common_speculative_init(mode.params, 1);
  if (mode.drafter == nullptr) fail("no mode " + mode.name);
  common_speculative_begin(mode.drafter, 0, mode.done);
}

llama_tokens draft(Mode& mode, llama_token last, int n_most) {
  llama_tokens found;
  if (mode.drafter == nullptr || n_most <= 0) return found;
  common_speculative_get_draft_params(mode.drafter, 0) = {
      true, n_most, static_cast<llama_pos>(mode.done.size()), last, &mode.done, &found};
  common_speculative_draft(mode.drafter);
  return found;
}

// One step: the next token of the text and the drafts behind it.
void step(llama_context* context, Mode& mode, const llama_tokens& text) {
  const double start_ms = now_ms();
  const llama_token last = text[mode.at];
  const int n_left = static_cast<int>(text.size() - mode.at) - 1;
  const llama_tokens drafted = draft(mode, last, std::min(n_left, kMostDrafted));
  common_batch batch(context);
  auto place = static_cast<llama_pos>(mode.done.size());
  batch.add(last, place++, mode.sequence, true);
  for (const llama_token id : drafted) batch.add(id, place++, mode.sequence, true);
  if (llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch.get()) != 0) fail("a step failed");
  size_t n_right = 0;
  while (n_right < drafted.size() && drafted[n_right] == text[mode.at + 1 + n_right]) ++n_right;
  if (mode.drafter != nullptr && !drafted.empty()) {
    common_speculative_accept(mode.drafter, 0, static_cast<uint16_t>(n_right));
  }
  for (size_t i = 0; i <= n_right; ++i) mode.done.push_back(text[mode.at + i]);
  mode.at += n_right + 1;
  llama_memory_seq_rm(llama_get_memory(context), mode.sequence,
                      static_cast<llama_pos>(mode.done.size()), -1);
  mode.ms += now_ms() - start_ms;
  ++mode.n_steps;
  mode.n_rows += static_cast<int>(drafted.size()) + 1;
}

void read_prompt(llama_context* context, const llama_tokens& prompt) {
  common_batch batch(context);
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    batch.add(prompt[i], static_cast<llama_pos>(i), 0, false);
  }
  if (batch.tokens.empty()) return;
  if (llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch.get()) != 0) fail("a prompt failed");
}

void race(llama_context* context, std::vector<Mode>& modes, const llama_tokens& text,
          size_t n_prompt) {
  llama_memory_t memory = llama_get_memory(context);
  llama_memory_clear(memory, true);
  const llama_tokens prompt(text.begin(), text.begin() + static_cast<ptrdiff_t>(n_prompt));
  read_prompt(context, prompt);
  for (Mode& mode : modes) {
    if (mode.sequence != 0) llama_memory_seq_cp(memory, 0, mode.sequence, -1, -1);
    begin(mode, prompt);
  }
  for (size_t end = n_prompt; end < text.size();) {
    end = std::min(end + kBlock, text.size());
    for (Mode& mode : modes) {
      while (mode.at + 1 < end) step(context, mode, text);
    }
  }
  std::printf("{");
  for (const Mode& mode : modes) {
    std::printf("%s\"%s\":{\"tokens\":%zu,\"steps\":%d,\"rows\":%d,\"ms\":%.3f}",
                &mode == modes.data() ? "" : ",", mode.name.c_str(), mode.at + 1 - n_prompt,
                mode.n_steps, mode.n_rows, mode.ms);
  }
  std::printf("}\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) fail("usage: llama_ngrams MODEL.gguf THREADS MODE...");
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) fail(std::string("cannot load ") + argv[1]);
  std::vector<Mode> modes;
  for (int i = 3; i < argc; ++i) modes.push_back({argv[i], i - 3});
  llama_context_params options = llama_context_default_params();
  options.n_ctx = kContext * static_cast<uint32_t>(modes.size());
  options.n_seq_max = static_cast<uint32_t>(modes.size());
  options.n_outputs_max = 1 + kMostDrafted;
  options.n_batch = kContext;
  options.n_threads = options.n_threads_batch = std::atoi(argv[2]);
  llama_context* context = llama_init_from_model(model, options);
  if (context == nullptr) fail("no context");
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    size_t n_prompt = 0;
    words >> n_prompt;
    llama_tokens text;
    for (llama_token id; words >> id;) text.push_back(id);
    if (n_prompt < 1 || text.size() <= n_prompt || text.size() > kContext) fail("not a text");
    race(context, modes, text, n_prompt);
  }
  for (Mode& mode : modes) common_speculative_free(mode.drafter);
  llama_free(context);
  llama_model_free(model);
  return 0;
}
