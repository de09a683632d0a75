// A text replayed as if a model had written it, with steps that take what a function says. Test
// code only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "speculation/speculation.h"

namespace edge::test {

// Milliseconds of a step of so many rows, the n-th.
using StepCost = std::function<double(int n_rows, int64_t step)>;

// Weights of 4 bits on a machine with much bandwidth: 1, 1.02, 1.13 and 1.5 for 1, 2, 4 and 8 rows.
inline double usual_cost(int n_rows, int64_t) {
  const double above = n_rows <= 2 ? 0.02 * (n_rows - 1) : 0.02 + 0.055 * (n_rows - 2);
  return 40.0 * (1.0 + std::max(above, 0.13 + 0.0925 * (n_rows - 4)));
}

// Makes the sizes of all steps known, so that trees of any are chosen.
inline void time_all_sizes(SharedSpeculation& shared) {
  for (int n = 15; n >= 0; --n) {
    const Controller::Step step{.n_drafted = n, .n_committed = n + 1, .ms = usual_cost(n + 1, 0)};
    shared.controller().record(step);
  }
}

struct Simulated {
  double ms = 0.0;
  double plain_ms = 0.0;  // one token a step
  int64_t n_steps = 0;
  int64_t n_rests = 0;           // of these
  std::vector<int32_t> drafted;  // ids of all trees, one after another
  double speed() const { return plain_ms / ms; }
};

// drawn: the text was drawn with that seed, each token at the step of its place.
inline Simulated simulate(SequenceSpeculation& drafts, std::span<const int32_t> text,
                          size_t n_prompt, const StepCost& cost,
                          SequenceSpeculation::Limits limits = {},
                          std::optional<uint64_t> drawn = {}) {
  Simulated done;
  size_t n_heard = 0;
  size_t n_told = 0;
  for (size_t at = n_prompt; at < text.size(); ++done.n_steps) {
    const bool rests = drafts.rests(text.first(at), at - std::exchange(n_heard, at));
    TokenTree tree;
    if (!rests) {
      drafts.observe({.tokens = text.first(at), .n_new = at - std::exchange(n_told, at)});
      const ComingDraws draws{.seed = drawn.value_or(0), .step = at};
      if (drawn) limits.draws = &draws;
      tree = drafts.propose(text.first(at), limits);
    }
    for (const DraftNode& node : tree) done.drafted.push_back(node.id);
    size_t n_new = 1;
    for (int node = -1; at + n_new < text.size(); ++n_new) {
      node = tree.child(node, text[at + n_new - 1]);
      if (node < 0) break;
    }
    const double ms = cost(tree.size() + 1, done.n_steps);
    for (size_t i = 0; i < n_new; ++i) done.plain_ms += cost(1, done.n_steps);
    done.ms += ms;
    done.n_rests += rests ? 1 : 0;
    at += n_new;
    if (rests) {
      drafts.record_rest(limits.n_other_rows, ms);
    } else {
      drafts.record_step(static_cast<int>(n_new), ms);
    }
  }
  drafts.observe({.tokens = text, .n_new = text.size() - n_told});
  return done;
}

}  // namespace edge::test
