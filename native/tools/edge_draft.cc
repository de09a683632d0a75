// edge_draft: what the drafters are worth on given texts. No model runs: each text is replayed as
// if a model had written it, with the real drafters, choice of trees and controller; a step takes
// what a given table says. benchmarks/draft_acceptance.py writes the texts and reads the answers.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "args.h"
#include "base/os.h"
#include "speculation/speculation.h"

namespace {

using namespace edge;

constexpr const char* kUsage =
    "edge_draft TEXTS\n"
    "TEXTS, int32 words: what steps of 1..16 rows take, in 1/10000 of one of 1 row; the size of "
    "the\n"
    "vocabulary; then for each text how many tokens of it are prompt, how many there are, whether\n"
    "later ones may draft from it (0 or 1), how many of a model's likeliest next tokens are known\n"
    "(0 to 8); the tokens; for each token a step reads, from the prompt's last on, those "
    "likeliest.";
constexpr size_t kRows = 16;
constexpr size_t kHeaderWords = kRows + 1;

struct Text {
  std::span<const int32_t> tokens;
  size_t n_prompt = 0;
  size_t n_top = 0;
  std::span<const int32_t> tops;  // [tokens.size() - n_prompt][n_top]

  // Of the tokens from index `first` on.
  std::vector<TopRow> top_rows(size_t first, size_t n_rows) const {
    std::vector<TopRow> rows;
    for (size_t i = first; i < first + n_rows && n_top > 0; ++i) {
      rows.push_back({tokens[i], tops.subspan((i + 1 - n_prompt) * n_top, n_top)});
    }
    return rows;
  }
};

struct Figures {
  int64_t n_tokens = 0;
  int64_t n_steps = 0;
  double ms = 0.0;
  std::array<int64_t, kRows + 1> steps_of_rows{};
};

// How many tokens of the text the tree has right: those of its path that the text takes.
int n_accepted(const TokenTree& tree, std::span<const int32_t> coming) {
  int node = -1;
  int n = 0;
  for (const int32_t id : coming) {
    node = tree.child(node, id);
    if (node < 0) break;
    ++n;
  }
  return n;
}

Figures replay(SequenceSpeculation& drafts, const Text& replayed, std::span<const int32_t> costs) {
  Figures figures;
  const auto text = replayed.tokens;
  std::vector<TopRow> rows;  // of the last step
  size_t n_heard = 0;
  size_t n_told = 0;
  for (size_t at = replayed.n_prompt; at < text.size();) {
    const bool rests = drafts.rests(text.first(at), at - std::exchange(n_heard, at));
    TokenTree tree;
    if (!rests) {
      const size_t n_new = at - std::exchange(n_told, at);
      drafts.observe({.tokens = text.first(at), .n_new = n_new, .rows = rows});
      tree = drafts.propose(text.first(at), {});
    }
    // The token after the last right one comes of the step as well.
    const size_t n_right = static_cast<size_t>(n_accepted(tree, text.subspan(at)));
    const size_t n_new = std::min(n_right + 1, text.size() - at);
    const size_t n_rows = static_cast<size_t>(tree.size()) + 1;
    const double ms = costs[n_rows - 1] / 1e4;
    rows = rests ? std::vector<TopRow>() : replayed.top_rows(at - 1, n_new);
    at += n_new;
    if (rests) {
      drafts.record_rest(0, ms);
    } else {
      drafts.record_step(static_cast<int>(n_new), ms);
    }
    figures.n_tokens += static_cast<int64_t>(n_new);
    figures.ms += ms;
    ++figures.n_steps;
    ++figures.steps_of_rows[n_rows];
  }
  return figures;
}

void print(const Figures& figures, const DraftCountsByKind& counts, size_t memory_bytes) {
  std::printf("{\"tokens\":%lld,\"steps\":%lld,\"ms\":%.4f,\"memory_bytes\":%zu,\"rows\":[",
              static_cast<long long>(figures.n_tokens), static_cast<long long>(figures.n_steps),
              figures.ms, memory_bytes);
  for (size_t i = 1; i <= kRows; ++i) {
    std::printf("%s%lld", i > 1 ? "," : "", static_cast<long long>(figures.steps_of_rows[i]));
  }
  std::printf("],\"drafted\":[");
  for (size_t i = 0; i < counts.size(); ++i) {
    std::printf("%s%lld", i > 0 ? "," : "", static_cast<long long>(counts[i].drafted));
  }
  std::printf("],\"accepted\":[");
  for (size_t i = 0; i < counts.size(); ++i) {
    std::printf("%s%lld", i > 0 ? "," : "", static_cast<long long>(counts[i].accepted));
  }
  std::printf("]}\n");
}

// False if the words are not what kUsage says.
bool replay_all(std::span<const int32_t> words) {
  if (words.size() < kHeaderWords) return false;
  const auto costs = words.first(kRows);
  SharedSpeculation shared({.n_vocab = words[kRows]});
  for (words = words.subspan(kHeaderWords); !words.empty();) {
    if (words.size() < 4 || words[0] < 1 || words[1] < words[0]) return false;
    if (words[3] < 0 || words[3] > kTopTokens) return false;
    Text text;
    text.n_prompt = static_cast<size_t>(words[0]);
    text.n_top = static_cast<size_t>(words[3]);
    const size_t n_tokens = static_cast<size_t>(words[1]);
    const size_t n_tops = (n_tokens - text.n_prompt) * text.n_top;
    const bool is_kept = words[2] != 0;
    words = words.subspan(4);
    if (words.size() < n_tokens + n_tops) return false;
    text.tokens = words.first(n_tokens);
    text.tops = words.subspan(n_tokens, n_tops);
    words = words.subspan(n_tokens + n_tops);
    SequenceSpeculation drafts(shared);
    const Figures figures = replay(drafts, text, costs);
    print(figures, drafts.counts(), shared.memory_bytes() + drafts.memory_bytes());
    if (is_kept) shared.keep_text(text.tokens);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  const auto words = args.positional(1, kUsage);
  if (!words) return edge_tools::kExitUsage;
  auto file = MappedFile::open(words->front());
  if (!file.is_ok()) {
    std::fprintf(stderr, "%s\n", file.status().message().c_str());
    return edge_tools::kExitFailure;
  }
  const auto bytes = file.value().bytes();
  // A mapping is aligned to pages.
  const auto* ids = reinterpret_cast<const int32_t*>(bytes.data());
  if (!replay_all({ids, bytes.size() / sizeof(int32_t)})) {
    std::fprintf(stderr, "%s: not what edge_draft reads\nusage: %s\n", words->front().c_str(),
                 kUsage);
    return edge_tools::kExitFailure;
  }
  return 0;
}
