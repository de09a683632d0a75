#include "speculation/recycling.h"

#include <algorithm>
#include <bit>

namespace edge {

namespace {

constexpr int kMaxProposed = 24;
constexpr int kDepths = 4;  // that are told apart
// What others have claimed of a node's children tells how much is left.
constexpr std::array<float, 4> kClaimed = {0.0F, 0.2F, 0.5F, 0.8F};
constexpr double kLeastPath = 0.01;

struct Open {
  int32_t token;
  int node;
  int depth;
  double path;
};

int claimed_class(const Candidates& candidates, int parent) {
  float sum = 0.0F;
  for (int i = parent + 1; i < candidates.size(); ++i) {
    if (candidates[i].parent == parent) sum += candidates[i].probability;
  }
  return static_cast<int>(std::upper_bound(kClaimed.begin(), kClaimed.end(), sum) -
                          kClaimed.begin()) -
         1;
}

double prior(int rank, int depth, int claimed) {
  return 0.25 / (1 + rank) / (1 + depth / 4.0) / (1 + claimed);
}

}  // namespace

RecyclingTable::RecyclingTable(size_t memory_bytes, int n_vocab)
    : entries_(std::min(std::bit_floor(std::max(memory_bytes / sizeof(Entry), size_t{1})),
                        std::bit_ceil(static_cast<size_t>(std::max(n_vocab, 1))))) {}

size_t RecyclingTable::index(int32_t token) const {
  return static_cast<uint32_t>(token) & (entries_.size() - 1);
}

RecyclingTable::Entry& RecyclingTable::entry_of(int32_t token) {
  Entry& entry = entries_[index(token)];
  if (entry.token != token) {
    entry.token = token;
    entry.followers.fill(-1);
  }
  return entry;
}

void RecyclingTable::set(int32_t token, std::span<const int32_t> followers) {
  Entry& entry = entry_of(token);
  entry.followers.fill(-1);
  std::copy_n(followers.begin(), std::min(followers.size(), entry.followers.size()),
              entry.followers.begin());
}

void RecyclingTable::promote(int32_t token, int32_t follower) {
  Followers& f = entry_of(token).followers;
  auto place = std::find(f.begin(), f.end(), follower);
  if (place == f.end()) --place;
  std::rotate(f.begin(), place, place + 1);
  f.front() = follower;
}

const RecyclingTable::Followers* RecyclingTable::find(int32_t token) const {
  const Entry& entry = entries_[index(token)];
  return entry.token == token ? &entry.followers : nullptr;
}

void RecyclingDrafter::propose(const DraftContext& context, Candidates& out) {
  std::array<Open, kMaxProposed + 1> open{};
  open[0] = {context.tokens.back(), -1, 0, 1.0};
  size_t n_open = 1;
  // Breadth first: each level's probabilities are below those above.
  for (size_t i = 0; i < n_open; ++i) {
    const Open parent = open[i];
    const RecyclingTable::Followers* followers = table_.find(parent.token);
    if (followers == nullptr || parent.depth >= context.max_depth) continue;
    const int claimed = claimed_class(out, parent.node);
    const int depth = std::min(parent.depth, kDepths - 1);
    for (int rank = 0; rank < kTopTokens && n_open < open.size(); ++rank) {
      const int32_t id = (*followers)[static_cast<size_t>(rank)];
      if (id < 0) break;
      const int bucket = (depth * static_cast<int>(kClaimed.size()) + claimed) * kTopTokens + rank;
      const float p = acceptance_.probability(kind(), bucket, prior(rank, depth, claimed));
      const double path = parent.path * static_cast<double>(p);
      if (path < kLeastPath) continue;
      const int node = out.add({id, parent.node, p, kind(), static_cast<uint8_t>(bucket)});
      if (node >= 0) open[n_open++] = {id, node, parent.depth + 1, path};
    }
  }
}

void RecyclingDrafter::observe(const DraftObservation& observation) {
  const auto& tokens = observation.tokens;
  const size_t from = std::max<size_t>(tokens.size() - observation.n_new, 1);
  for (size_t i = from; i < tokens.size(); ++i) table_.promote(tokens[i - 1], tokens[i]);
  for (const TopRow& row : observation.rows) table_.set(row.token, row.next);
}

}  // namespace edge
