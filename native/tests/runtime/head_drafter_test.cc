#include "runtime/head_drafter.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/sampler.h"

namespace {

using edge::Acceptance;
using edge::Candidates;
using edge::DraftObservation;
using edge::DraftRows;
using edge::HeadDrafter;
using edge::KvCache;
using edge::KvGroup;
using edge::RowInput;
using edge::SharedAcceptance;
using edge::Status;
using edge::StepOutputs;

constexpr int kVocab = 9;
constexpr int kWidth = 2;
constexpr int kContext = 64;

uint32_t mixed(uint32_t hash, uint32_t value) { return (hash ^ value) * 16777619U; }

uint32_t hash_of_row(int32_t token, const float* hidden) {
  uint32_t hash = mixed(2166136261U, static_cast<uint32_t>(token));
  for (int i = 0; i < kWidth; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, hidden + i, sizeof bits);
    hash = mixed(hash, bits);
  }
  return hash;
}

// What a head makes of a row that sees rows of these hashes: [kVocab] logits, [kWidth] of state.
struct Made {
  std::vector<float> logits, state;
};
Made made_of(std::span<const uint32_t> rows) {
  uint32_t hash = 2166136261U;
  for (const uint32_t row : rows) hash = mixed(hash, row);
  Made made;
  for (int i = 0; i < kVocab; ++i) {
    hash = mixed(hash, static_cast<uint32_t>(i));
    made.logits.push_back(static_cast<float>(hash >> 8 & 0xFF) / 64.0F);
  }
  for (int i = 0; i < kWidth; ++i) {
    hash = mixed(hash, 77U);
    made.state.push_back(static_cast<float>(hash >> 8 & 0xFF));
  }
  return made;
}

// Knows the rows by their slots, as pages would.
class HashHead final : public edge::StepModel {
 public:
  int n_vocab() const override { return kVocab; }
  int d_model() const override { return kWidth; }
  int max_rows() const override { return 4; }
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const edge::StopCheck&) override {
    ++n_steps;
    if (fails) return {edge::Code::kNumeric, "a test"};
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto slot = static_cast<size_t>(rows[r].slot);
      REQUIRE(rows[r].position == rows[r].slot);
      slots_.resize(std::max(slots_.size(), slot + 1));
      slots_[slot] = hash_of_row(rows[r].token, rows[r].hidden);
      const Made made = made_of(std::span(slots_).first(slot + 1));
      const auto found = std::find(outputs.rows.begin(), outputs.rows.end(), static_cast<int>(r));
      if (found == outputs.rows.end()) continue;
      const auto at = static_cast<size_t>(found - outputs.rows.begin());
      std::copy(made.logits.begin(), made.logits.end(), outputs.logits[at]);
      std::copy(made.state.begin(), made.state.end(), outputs.row_hidden[at]);
    }
    return {};
  }

  int n_steps = 0;
  bool fails = false;

 private:
  std::vector<uint32_t> slots_;
};

std::vector<float> softmax(const std::vector<float>& logits) {
  std::vector<float> out;
  double sum = 0;
  for (const float one : logits) sum += std::exp(double{one});
  for (const float one : logits) out.push_back(static_cast<float>(std::exp(double{one}) / sum));
  return out;
}

struct Sequence {
  HashHead head;
  SharedAcceptance shared;
  Acceptance acceptance{shared};
  std::vector<KvGroup> groups{{.window = 0, .page_bytes = 64}};
  KvCache cache{groups, uint64_t{1} << 20};
  std::vector<int32_t> ids{1, 2, 3, 5, 8, 13, 21, 34, 55};
  HeadDrafter drafter{DraftRows::create(head, cache, kContext).take(), ids, acceptance, 0};
  std::vector<int32_t> tokens;
  std::vector<float> hidden;  // of all tokens
  size_t first = 0;           // token that the head begins with

  void observe(size_t n_new, bool with_hidden = true) {
    for (size_t i = 0; i < n_new; ++i) {
      const auto at = static_cast<float>(tokens.size());
      tokens.push_back(static_cast<int32_t>(tokens.size() * 7 % 40));
      hidden.insert(hidden.end(), {at, -at});
    }
    DraftObservation seen{.tokens = tokens, .n_new = n_new};
    if (with_hidden) seen.hidden = std::span(hidden).last(n_new * kWidth);
    if (!with_hidden) first = tokens.size();
    drafter.observe(seen);
  }
  Candidates propose(int max_depth = 15, const edge::ComingDraws* draws = nullptr) {
    Candidates out;
    drafter.propose({.tokens = tokens, .max_depth = max_depth, .draws = draws}, out);
    return out;
  }
  // Hashes of the head's rows for the committed tokens.
  std::vector<uint32_t> rows() const {
    std::vector<uint32_t> found;
    for (size_t i = first; i < tokens.size(); ++i) {
      found.push_back(hash_of_row(tokens[i], hidden.data() + i * kWidth));
    }
    return found;
  }
};

// Every candidate of a proposal is what the head says of the row before it, by rows that are made
// again from the beginning.
void check_proposal(const Sequence& sequence, const Candidates& out) {
  REQUIRE(!out.empty());
  struct Row {
    std::vector<uint32_t> hashes;
    Made made;
  };
  Row root{sequence.rows(), {}};
  root.made = made_of(root.hashes);
  std::vector<Row> rows;
  for (const edge::DraftNode& node : out) {
    const Row& before = node.parent < 0 ? root : rows[static_cast<size_t>(node.parent)];
    const std::vector<float> p = softmax(before.made.logits);
    const auto at = static_cast<size_t>(
        std::find(sequence.ids.begin(), sequence.ids.end(), node.id) - sequence.ids.begin());
    REQUIRE(at < sequence.ids.size());
    CHECK(node.probability == doctest::Approx(p[at]).epsilon(1e-5));
    CHECK(std::count_if(p.begin(), p.end(), [&](float other) { return other > p[at]; }) <
          HeadDrafter::kBranches);
    CHECK(node.drafter == edge::DrafterKind::kHead);
    Row own{before.hashes, {}};
    own.hashes.push_back(hash_of_row(node.id, before.made.state.data()));
    own.made = made_of(own.hashes);
    rows.push_back(std::move(own));
  }
}

TEST_CASE("a head's candidates are what it says behind each of their paths") {
  Sequence sequence;
  int deepest = 0;
  bool has_branched = false;
  for (const size_t n_new : {1, 6, 1, 3, 2, 1, 1, 5}) {
    sequence.observe(n_new);
    const Candidates out = sequence.propose();
    check_proposal(sequence, out);
    for (int i = 0; i < out.size(); ++i) deepest = std::max(deepest, out.depth(i));
    for (int i = 0; i < out.size(); ++i) has_branched |= out[i].parent > 0;
  }
  CHECK(deepest > 1);
  CHECK(has_branched);
}

TEST_CASE("a second proposal for the same tokens is the first one, and reads no token again") {
  Sequence sequence;
  sequence.observe(5);
  const Candidates first = sequence.propose();
  const int n_steps = sequence.head.n_steps;
  const Candidates second = sequence.propose();
  CHECK(sequence.head.n_steps - n_steps < n_steps);
  REQUIRE(first.size() == second.size());
  for (int i = 0; i < first.size(); ++i) CHECK(first[i].id == second[i].id);
}

TEST_CASE("candidates are no deeper than asked") {
  Sequence sequence;
  sequence.observe(4);
  const Candidates out = sequence.propose(1);
  REQUIRE(!out.empty());
  for (int i = 0; i < out.size(); ++i) CHECK(out[i].parent == -1);
}

TEST_CASE("a head goes back with its sequence") {
  Sequence sequence;
  sequence.observe(12);
  check_proposal(sequence, sequence.propose());
  for (const size_t n_kept : {9, 3}) {
    sequence.tokens.resize(n_kept);
    sequence.hidden.resize(n_kept * kWidth);
    sequence.drafter.rewind(sequence.tokens);
    CHECK(sequence.propose().empty());  // the row of the last token has no logits any more
    sequence.observe(2);
    check_proposal(sequence, sequence.propose());
  }
  sequence.tokens.clear();
  sequence.hidden.clear();
  sequence.drafter.rewind({});
  sequence.observe(3);
  check_proposal(sequence, sequence.propose());
}

TEST_CASE("tokens without hidden states are left out, and the head begins behind them") {
  Sequence sequence;
  sequence.observe(7, false);
  CHECK(sequence.propose().empty());
  sequence.observe(2);
  check_proposal(sequence, sequence.propose());
}

TEST_CASE("a head with no more room begins again with what it has not read") {
  Sequence sequence;
  for (int i = 0; i < 30; ++i) {
    sequence.observe(5);
    const Candidates out = sequence.propose();
    REQUIRE(!out.empty());
    if (i == 11) CHECK(sequence.first == 0);
    if (i == 12) sequence.first = 60;
    if (i < 24) check_proposal(sequence, out);
    if (i == 23) break;
  }
  Sequence longer;
  longer.observe(200);
  longer.first = 200 - (kContext - HeadDrafter::kMostPasses);
  check_proposal(longer, longer.propose());
}

TEST_CASE("a head that fails is silent") {
  Sequence sequence;
  sequence.observe(3);
  sequence.head.fails = true;
  CHECK(sequence.propose().empty());
  sequence.head.fails = false;
  sequence.observe(1);
  CHECK(sequence.propose().empty());
}

TEST_CASE("where tokens are drawn the head guesses what would be drawn of its own logits") {
  Sequence sequence;
  sequence.observe(7);
  const edge::SamplerParams params{.temperature = 0.8, .top_k = 6, .seed = 5};
  const edge::ComingDraws draws{.seed = params.seed, .step = 40, .params = &params};
  edge::SamplerParams sharper = params;
  sharper.temperature *= edge::HeadDrafter::kTemperature;
  const Candidates out = sequence.propose(15, &draws);
  REQUIRE(!out.empty());
  std::vector<Made> made;  // of each node
  std::vector<std::vector<uint32_t>> hashes;
  const std::vector<uint32_t> root = sequence.rows();
  bool is_any_below = false;
  for (int i = 0; i < out.size(); ++i) {
    const edge::DraftNode& node = out[i];
    const auto parent = static_cast<size_t>(std::max(node.parent, 0));
    const std::vector<uint32_t>& above = node.parent < 0 ? root : hashes[parent];
    const Made before = node.parent < 0 ? made_of(root) : made[parent];
    const uint64_t step = 40 + static_cast<uint64_t>(out.depth(node.parent));
    // Its logits, sharpened, stand for the model's: what the sampler draws of them is the likeliest
    // guess.
    std::vector<float> of_all(64, -1e6F);
    for (size_t at = 0; at < sequence.ids.size(); ++at) {
      of_all[static_cast<size_t>(sequence.ids[at])] = before.logits[at];
    }
    const auto guesses = edge::guess(before.logits, sharper, step, sequence.ids, 3);
    CHECK(guesses.front().id == edge::sample(of_all, sharper, step).value().id);
    CHECK(std::any_of(guesses.begin(), guesses.end(), [&](const edge::TokenShare& one) {
      return one.id == node.id && node.probability == doctest::Approx(one.probability);
    }));
    hashes.push_back(above);
    hashes.back().push_back(hash_of_row(node.id, before.state.data()));
    made.push_back(made_of(hashes.back()));
    is_any_below |= node.parent >= 0;
  }
  CHECK(is_any_below);
}

}  // namespace
