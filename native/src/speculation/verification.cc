#include "speculation/verification.h"

#include <algorithm>
#include <numeric>

namespace edge {
namespace {

using Law = std::vector<double>;

double total(const Law& law) { return std::accumulate(law.begin(), law.end(), 0.0); }

void normalize(Law& law) {
  const double sum = total(law);
  if (sum <= 0) return;
  for (double& x : law) x /= sum;
}

// What share * target has more than draft.
Law excess(const Law& target, const Law& draft, double share) {
  Law more(target.size());
  for (size_t i = 0; i < more.size(); ++i) more[i] = std::max(0.0, share * target[i] - draft[i]);
  return more;
}

int32_t draw_from(const Law& law, double u) {
  const double at = u * total(law);
  double sum = 0;
  int32_t last = 0;
  for (size_t i = 0; i < law.size(); ++i) {
    if (law[i] <= 0) continue;
    sum += law[i];
    last = static_cast<int32_t>(i);
    if (sum > at) break;
  }
  return last;
}

// Of a node, while its drafts are looked at one after the other.
struct Claim {
  Law target;
  Law draft;
  double weight = 1;  // with which the path down to it stands

  double weight_of(int32_t id) const {
    const auto at = static_cast<size_t>(id);
    return std::min(1.0, weight * target[at] / draft[at]);
  }
  // The draft `id` does not stand.
  void reject(int32_t id) {
    Law more = excess(target, draft, weight);
    const double sum = total(more);
    const double left = sum + 1 - weight;
    weight = left > 0 ? sum / left : 1;  // 0 / 0 by rounding alone: what is surely right stands
    if (sum > 0) {
      target = std::move(more);
      normalize(target);
    }
    draft[static_cast<size_t>(id)] = 0;
    normalize(draft);
  }
};

std::vector<Claim> claims_of(const DrawnTree& drawn) {
  std::vector<Claim> claims(drawn.target.size());
  for (size_t i = 0; i < claims.size(); ++i) claims[i] = {drawn.target[i], drawn.draft[i]};
  return claims;
}

// The first child that is still there, or -1.
int first_child(const TokenTree& tree, const std::vector<bool>& is_gone, int node) {
  for (int i = node + 1; i < tree.size(); ++i) {
    if (tree[i].parent == node && !is_gone[static_cast<size_t>(i)]) return i;
  }
  return -1;
}

}  // namespace

Verdict verify_rejection(const DrawnTree& drawn, const UniformDraws& draw) {
  const TokenTree& tree = drawn.tree;
  std::vector<Claim> claims = claims_of(drawn);
  std::vector<bool> is_gone(static_cast<size_t>(tree.size()));
  int node = -1;
  for (;;) {
    Claim& claim = claims[static_cast<size_t>(node + 1)];
    const int child = first_child(tree, is_gone, node);
    if (child < 0) return {node, draw_from(claim.target, draw())};
    if (draw() < claim.weight_of(tree[child].id)) {
      node = child;
      continue;
    }
    claim.reject(tree[child].id);
    is_gone[static_cast<size_t>(child)] = true;
  }
}

Verdict verify_traversal(const DrawnTree& drawn, const UniformDraws& draw) {
  const TokenTree& tree = drawn.tree;
  std::vector<Claim> claims = claims_of(drawn);
  std::vector<bool> is_gone(static_cast<size_t>(tree.size()));
  // Down to a leaf, each node with the weight that its parent's drafts leave it.
  int node = -1;
  for (;;) {
    const int child = first_child(tree, is_gone, node);
    Claim& claim = claims[static_cast<size_t>(node + 1)];
    if (child >= 0) {
      claims[static_cast<size_t>(child + 1)].weight = claim.weight_of(tree[child].id);
      node = child;
      continue;
    }
    if (node < 0 || draw() < claim.weight) return {node, draw_from(claim.target, draw())};
    is_gone[static_cast<size_t>(node)] = true;
    const int32_t id = tree[node].id;
    node = tree[node].parent;
    claims[static_cast<size_t>(node + 1)].reject(id);
  }
}

}  // namespace edge
