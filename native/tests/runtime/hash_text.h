// Texts of the model made of hashes, on sequences that share pages.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/kv_sequence.h"

namespace edge::test {

constexpr int kTextContext = 600;

// A text and its KV. run() adopts what is known, processes the rest, and returns the last logits.
struct Text {
  std::vector<int32_t> ids;
  std::unique_ptr<KvSequence> kv;
  int n_adopted = 0;

  std::vector<float> run(HashModel& model, int n_most_rows = 128) {
    std::vector<float> logits(kVocab);
    if (kv->n_tokens() == static_cast<int>(ids.size())) kv->rewind(kv->n_tokens() - 1);
    n_adopted = kv->adopt(std::span(ids).first(ids.size() - 1));
    while (kv->n_tokens() < static_cast<int>(ids.size())) {
      const int n_left = static_cast<int>(ids.size()) - kv->n_tokens();
      const KvStepPlan plan = kv->prepare(std::min(n_left, n_most_rows)).take();
      std::vector<RowInput> rows;
      for (int i = 0; i < plan.n_new_tokens; ++i) {
        const int position = plan.first_position + i;
        rows.push_back(
            {ids[static_cast<size_t>(position)], position, position, kv->view(), nullptr});
      }
      const std::vector<int32_t> last = {plan.n_new_tokens - 1};
      float* const to[] = {logits.data()};
      const StepOutputs outputs{.rows = last, .logits = to};
      REQUIRE(model.step(rows, outputs, {}).is_ok());
      REQUIRE(kv->commit(plan.n_new_tokens).is_ok());
      kv->publish(std::span(ids).first(static_cast<size_t>(kv->n_tokens())));
    }
    return logits;
  }
  void end() {
    kv->settle(ids);
    kv.reset();
  }
};

inline std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace edge::test
