// edge_draft: what the drafters are worth on given texts. Each text is replayed as if a model had
// written it, with the real drafters, choice of trees and controller; a step takes what a given
// table says. benchmarks/draft_acceptance.py writes the texts and reads the answers.
//
// --head: with the draft head of that file, which sees what its model makes of the text. A pass of
// it takes half a millisecond, a plain step as much longer as it does on the model that the table
// is of.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/guard.h"
#include "api/impl.h"
#include "args.h"
#include "base/os.h"
#include "edgellm/engine.h"
#include "runtime/sampler.h"
#include "speculation/speculation.h"

namespace {

using namespace edge;

constexpr const char* kUsage =
    "edge_draft TEXTS [--head MODEL --pass-share S]\n"
    "TEXTS, int32 words: what steps of 1..16 rows take, in 1/10000 of one of 1 row; the size of "
    "the\n"
    "vocabulary; then for each text how many tokens of it are prompt, how many there are, whether\n"
    "later ones may draft from it (0 or 1), how many of a model's likeliest next tokens are known\n"
    "(0 to 8), the temperature that it was drawn at, in 1/10000 (0: it was not drawn), and the "
    "seed;\n"
    "the tokens; for each token a step reads, from the prompt's last on, those likeliest.\n"
    "S: what a pass of a head takes of a plain step, on the model whose steps those are";
constexpr size_t kRows = 16;
constexpr size_t kHeaderWords = kRows + 1;
constexpr size_t kTextWords = 6;  // before its tokens

struct Text {
  std::span<const int32_t> tokens;
  size_t n_prompt = 0;
  size_t n_top = 0;
  std::span<const int32_t> tops;  // [tokens.size() - n_prompt][n_top]
  SamplerParams drawn;            // temperature 0: it was not

  // Of the tokens from index `first` on.
  std::vector<TopRow> top_rows(size_t first, size_t n_rows) const {
    std::vector<TopRow> rows;
    for (size_t i = first; i < first + n_rows && n_top > 0; ++i) {
      rows.push_back({tokens[i], tops.subspan((i + 1 - n_prompt) * n_top, n_top)});
    }
    return rows;
  }
};

// A head that is as slow as one of a large model: what is made of its passes counts little.
class SlowHead final : public StepModel {
 public:
  static constexpr double kPassMs = 0.5;

  explicit SlowHead(std::unique_ptr<StepModel> head) : head_(std::move(head)) {}
  int n_vocab() const override { return head_->n_vocab(); }
  int d_model() const override { return head_->d_model(); }
  int max_rows() const override { return head_->max_rows(); }
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    const int64_t end_ns = monotonic_ns() + static_cast<int64_t>(kPassMs * 1e6);
    const Status status = head_->step(rows, outputs, should_stop);
    while (monotonic_ns() < end_ns) {
    }
    return status;
  }

 private:
  std::unique_ptr<StepModel> head_;
};

// A model with a draft head, and how long the steps are that its passes are a share of.
class Head {
 public:
  Head(const std::string& path, double pass_share)
      : model_(load(path)), plain_ms_(SlowHead::kPassMs / pass_share) {
    edgellm::Model::Impl& impl = *model_.impl();
    edge::api::take_or_throw(impl.prepare_head(1));
    impl.head_model = std::make_unique<SlowHead>(std::move(impl.head_model));
  }
  double plain_ms() const { return plain_ms_; }
  void join(SequenceSpeculation& drafts) {
    if (auto drafter = model_.impl()->head_drafter(drafts.acceptance())) {
      drafts.add(std::move(drafter));
    }
  }
  // [tokens.size() + 1][d_model]: of the token before each, zeros before the first.
  std::vector<float> hidden_before(std::span<const int32_t> tokens) const {
    edgellm::Session session(model_, static_cast<int>(tokens.size()));
    session.append(tokens);
    std::vector<float> hidden(static_cast<size_t>(model_.info().d_model));
    while (session.n_pending() > 0) {
      const std::vector<float> rows = session.run_with_hidden();
      hidden.insert(hidden.end(), rows.begin(), rows.end());
    }
    return hidden;
  }

 private:
  static edgellm::Model load(const std::string& path) {
    edgellm::LoadOptions options;
    options.n_threads = 1;
    options.speculate = edgellm::Speculate::kOff;
    return edgellm::Model::load(path, options);
  }
  edgellm::Model model_;
  double plain_ms_;
};

struct Figures {
  int64_t n_tokens = 0;
  int64_t n_steps = 0;
  double steps_time = 0.0;  // in plain steps
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

// head: null: none.
Figures replay(SequenceSpeculation& drafts, const Text& replayed, std::span<const int32_t> costs,
               const Head* head) {
  Figures figures;
  const auto text = replayed.tokens;
  const std::vector<float> hidden = head ? head->hidden_before(text) : std::vector<float>();
  const size_t n_hidden = hidden.size() / (text.size() + 1);
  const double plain_ms = head ? head->plain_ms() : 1.0;
  std::vector<TopRow> rows;  // of the last step
  size_t n_heard = 0;
  size_t n_told = 0;
  for (size_t at = replayed.n_prompt; at < text.size();) {
    const bool rests = drafts.rests(text.first(at), at - std::exchange(n_heard, at));
    TokenTree tree;
    double draft_ms = 0.0;
    if (!rests) {
      const size_t n_before = std::exchange(n_told, at);
      const size_t n_new = at - n_before;
      const int64_t start_ns = monotonic_ns();
      drafts.observe({.tokens = text.first(at),
                      .n_new = n_new,
                      .rows = rows,
                      .hidden = std::span(hidden).subspan(n_before * n_hidden, n_new * n_hidden)});
      const ComingDraws draws{.seed = replayed.drawn.seed, .step = at, .params = &replayed.drawn};
      const bool is_drawn = replayed.drawn.temperature > 0;
      tree = drafts.propose(text.first(at), {.draws = is_drawn ? &draws : nullptr});
      if (head) draft_ms = static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
      draft_ms = std::max(0.0, draft_ms - drafts.take_once_ms());
    }
    // The token after the last right one comes of the step as well.
    const size_t n_right = static_cast<size_t>(n_accepted(tree, text.subspan(at)));
    const size_t n_new = std::min(n_right + 1, text.size() - at);
    const size_t n_rows = static_cast<size_t>(tree.size()) + 1;
    const double ms = costs[n_rows - 1] / 1e4 * plain_ms;
    rows = rests ? std::vector<TopRow>() : replayed.top_rows(at - 1, n_new);
    at += n_new;
    if (rests) {
      drafts.record_rest(0, ms);
    } else {
      drafts.record_step(static_cast<int>(n_new), ms, draft_ms);
    }
    figures.n_tokens += static_cast<int64_t>(n_new);
    figures.steps_time += (ms + draft_ms) / plain_ms;
    ++figures.n_steps;
    ++figures.steps_of_rows[n_rows];
  }
  return figures;
}

void print(const Figures& figures, const DraftCountsByKind& counts, size_t memory_bytes) {
  std::printf("{\"tokens\":%lld,\"steps\":%lld,\"time\":%.4f,\"memory_bytes\":%zu,\"rows\":[",
              static_cast<long long>(figures.n_tokens), static_cast<long long>(figures.n_steps),
              figures.steps_time, memory_bytes);
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
bool replay_all(std::span<const int32_t> words, Head* head) {
  if (words.size() < kHeaderWords) return false;
  const auto costs = words.first(kRows);
  SharedSpeculation shared({.n_vocab = words[kRows]});
  for (words = words.subspan(kHeaderWords); !words.empty();) {
    if (words.size() < kTextWords || words[0] < 1 || words[1] < words[0]) return false;
    if (words[3] < 0 || words[3] > kTopTokens || words[4] < 0) return false;
    Text text;
    text.n_prompt = static_cast<size_t>(words[0]);
    text.n_top = static_cast<size_t>(words[3]);
    const size_t n_tokens = static_cast<size_t>(words[1]);
    const size_t n_tops = (n_tokens - text.n_prompt) * text.n_top;
    const bool is_kept = words[2] != 0;
    text.drawn = {.temperature = words[4] / 1e4, .seed = static_cast<uint64_t>(words[5])};
    if (!text.drawn.check().is_ok()) return false;
    words = words.subspan(kTextWords);
    if (words.size() < n_tokens + n_tops) return false;
    text.tokens = words.first(n_tokens);
    text.tops = words.subspan(n_tokens, n_tops);
    words = words.subspan(n_tokens + n_tops);
    SequenceSpeculation drafts(shared);
    if (head) head->join(drafts);
    const Figures figures = replay(drafts, text, costs, head);
    print(figures, drafts.counts(), shared.memory_bytes() + drafts.memory_bytes());
    if (is_kept) shared.keep_text(text.tokens);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  std::string head_path;
  double pass_share = 0.0;
  args.text("--head", head_path);
  args.number("--pass-share", pass_share);
  const auto words = args.positional(1, kUsage);
  if (!words) return edge_tools::kExitUsage;
  if (head_path.empty() != !(pass_share > 0.0)) {
    std::fprintf(stderr, "usage: %s\n", kUsage);
    return edge_tools::kExitUsage;
  }
  auto file = MappedFile::open(words->front());
  if (!file.is_ok()) {
    std::fprintf(stderr, "%s\n", file.status().message().c_str());
    return edge_tools::kExitFailure;
  }
  const auto bytes = file.value().bytes();
  // A mapping is aligned to pages.
  const auto* ids = reinterpret_cast<const int32_t*>(bytes.data());
  try {
    std::optional<Head> head;
    if (!head_path.empty()) head.emplace(head_path, pass_share);
    if (replay_all({ids, bytes.size() / sizeof(int32_t)}, head ? &*head : nullptr)) return 0;
  } catch (const edgellm::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), edgellm::sanitize(error.what()).c_str());
    return edge_tools::kExitFailure;
  }
  std::fprintf(stderr, "%s: not what edge_draft reads\nusage: %s\n", words->front().c_str(),
               kUsage);
  return edge_tools::kExitFailure;
}
