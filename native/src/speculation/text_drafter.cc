#include "speculation/text_drafter.h"

#include <algorithm>
#include <array>

namespace edge {

namespace {

using Match = SuffixAutomaton::Match;

constexpr int kMaxProposed = 28;  // candidates of one text
constexpr int kMaxChildren = 6;   // of one node
constexpr int kMaxLooked = 24;    // edges, to find children that are not there yet
constexpr double kLeastPath = 0.01;

// How far a repeated end of so many tokens can be trusted changes at these lengths.
constexpr std::array<int32_t, 8> kLengths = {1, 2, 3, 4, 6, 9, 16, 32};
// Guesses for what followed an end of that length, before any was counted.
constexpr std::array<double, 8> kPriors = {0.10, 0.25, 0.40, 0.55, 0.65, 0.75, 0.85, 0.92};

int length_class(int32_t length) {
  const auto above = std::upper_bound(kLengths.begin(), kLengths.end(), length);
  return std::max(0, static_cast<int>(above - kLengths.begin()) - 1);
}

// What a claim rests on.
struct Evidence {
  int32_t length;  // of the end that was repeated
  int rank;        // by how recently it followed
  bool is_sole;    // nothing else followed
  bool is_escape;  // something else followed a longer end
  bool is_usual;   // it followed more than once

  int bucket() const {
    const int order = is_sole ? 3 : std::min(rank, 2);
    return 16 * length_class(length) + (is_usual ? 8 : 0) + (is_escape ? 4 : 0) + order;
  }
  double prior() const {
    const double p = kPriors[static_cast<size_t>(length_class(length))];
    return p * (is_sole ? 1.0 : 0.6 / (1 << (2 * std::min(rank, 2)))) * (is_escape ? 0.3 : 1.0);
  }
};

// Expands the likeliest of the nodes proposed so far until nothing likely is left.
class TextExpansion {
 public:
  TextExpansion(const SuffixAutomaton& text, DrafterKind kind, const Acceptance& acceptance,
                int max_depth, Candidates& out)
      : text_(text), kind_(kind), acceptance_(acceptance), max_depth_(max_depth), out_(out) {}

  void run(Match match) {
    open_[n_open_++] = {match, -1, 0, 1.0};
    while (n_open_ > 0 && n_proposed_ < kMaxProposed) {
      const auto likeliest =
          std::max_element(open_.begin(), open_.begin() + n_open_,
                           [](const Open& a, const Open& b) { return a.path < b.path; });
      const Open node = *likeliest;
      *likeliest = open_[static_cast<size_t>(--n_open_)];
      expand(node);
    }
  }

 private:
  struct Open {
    Match match;
    int node = -1;
    int depth = 0;
    double path = 1.0;
  };

  void expand(const Open& node) {
    n_children_ = 0;
    int looked = 0;
    bool is_escape = false;
    for (Match m = text_.followed(node.match); m.length > 0; m = text_.shorter(m)) {
      const int32_t first = text_.first_edge(m.state);
      int rank = 0;
      for (int32_t e = first; e != SuffixAutomaton::kNone; e = text_.edge(e).next) {
        if (n_children_ == kMaxChildren || ++looked > kMaxLooked) return;
        const auto& edge = text_.edge(e);
        if (is_child(edge.token)) continue;
        const bool is_sole = e == first && edge.next == SuffixAutomaton::kNone;
        propose(node, {edge.to, m.length + 1}, edge.token,
                {m.length, rank++, is_sole, is_escape, edge.count > 1});
        if (n_proposed_ == kMaxProposed) return;
      }
      is_escape = true;
    }
  }

  void propose(const Open& parent, Match match, int32_t token, Evidence evidence) {
    children_[static_cast<size_t>(n_children_++)] = token;
    const int bucket = evidence.bucket();
    const float p = acceptance_.probability(kind_, bucket, evidence.prior());
    const double path = parent.path * static_cast<double>(p);
    if (path < kLeastPath) return;
    const int node = out_.add({token, parent.node, p, kind_, static_cast<uint8_t>(bucket)});
    if (node < 0) return;
    ++n_proposed_;
    if (parent.depth + 1 < max_depth_ && n_open_ < static_cast<int>(open_.size())) {
      open_[static_cast<size_t>(n_open_++)] = {match, node, parent.depth + 1, path};
    }
  }

  bool is_child(int32_t token) const {
    const auto end = children_.begin() + n_children_;
    return std::find(children_.begin(), end, token) != end;
  }

  const SuffixAutomaton& text_;
  DrafterKind kind_;
  const Acceptance& acceptance_;
  int max_depth_;
  Candidates& out_;
  std::array<Open, kMaxProposed + 1> open_{};
  int n_open_ = 0;
  int n_proposed_ = 0;
  std::array<int32_t, kMaxChildren> children_{};  // of the node being expanded
  int n_children_ = 0;
};

}  // namespace

void propose_from_text(const TextMatch& found, DrafterKind kind, const Acceptance& acceptance,
                       int max_depth, Candidates& out) {
  if (found.automaton == nullptr) return;
  TextExpansion(*found.automaton, kind, acceptance, max_depth, out).run(found.match);
}

void OwnTextDrafter::propose(const DraftContext& context, Candidates& out) {
  propose_from_text(text_.match(), kind(), acceptance_, context.max_depth, out);
}

void OwnTextDrafter::observe(const DraftObservation& observation) {
  for (const int32_t token : observation.tokens.last(observation.n_new)) text_.extend(token);
}

void StoreDrafter::propose(const DraftContext& context, Candidates& out) {
  propose_from_text(store_.match(cursor_), kind(), acceptance_, context.max_depth, out);
}

void StoreDrafter::observe(const DraftObservation& observation) {
  for (const int32_t token : observation.tokens.last(observation.n_new)) {
    store_.advance(cursor_, token);
  }
}

void StoreDrafter::rewind(std::span<const int32_t> tokens) {
  static constexpr size_t kSearchedTokens = 64;
  cursor_ = {};
  for (const int32_t token : tokens.last(std::min(tokens.size(), kSearchedTokens))) {
    store_.advance(cursor_, token);
  }
}

}  // namespace edge
