#include "runtime/draft_rows.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace edge {

namespace {

// Of rows [begin, end) of a whole, of which the last ones have a row of `out` each, `width` wide:
// where those rows are.
std::vector<float*> places(std::span<float> out, size_t width, size_t first, size_t begin,
                           size_t end) {
  std::vector<float*> found;
  for (size_t row = std::max(begin, first); row < end; ++row) {
    found.push_back(out.data() + (row - first) * width);
  }
  return found;
}

}  // namespace

Result<std::unique_ptr<DraftRows>> DraftRows::create(StepModel& model, KvCache& cache, int n_ctx,
                                                     Of of) {
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<KvSequence> kv, KvSequence::create(cache, n_ctx));
  const int width = of == Of::kHead ? model.d_model() : 0;
  return std::unique_ptr<DraftRows>(new DraftRows(model, std::move(kv), width));
}

Status DraftRows::add(std::span<const int32_t> tokens, std::span<const float> hidden,
                      std::span<float> logits, std::span<float> next) {
  const auto width = static_cast<size_t>(width_);
  const auto n_vocab = static_cast<size_t>(model_.n_vocab());
  const size_t n_out = logits.size() / n_vocab;
  if (hidden.size() != tokens.size() * width || next.size() != n_out * width ||
      logits.size() != n_out * n_vocab || n_out > tokens.size()) {
    return {Code::kInvalidArgument, std::to_string(tokens.size()) + " rows of a draft head and " +
                                        std::to_string(hidden.size()) +
                                        " values of hidden states; give each row " +
                                        std::to_string(width)};
  }
  const size_t first_out = tokens.size() - n_out;
  const auto most = static_cast<size_t>(model_.max_rows());
  for (size_t begin = 0; begin < tokens.size(); begin += most) {
    const size_t end = std::min(begin + most, tokens.size());
    const auto n = static_cast<int>(end - begin);
    EDGE_RETURN_IF_ERROR(kv_->prepare(n).status());
    std::vector<RowInput> rows;
    for (size_t row = begin; row < end; ++row) {
      const int at = kv_->n_tokens() + static_cast<int>(row - begin);
      rows.push_back({.token = tokens[row], .position = at, .slot = at, .kv = kv_->view()});
      if (width > 0) rows.back().hidden = hidden.data() + row * width;
    }
    const std::vector<float*> to_logits = places(logits, n_vocab, first_out, begin, end);
    std::vector<float*> to_next;
    if (width > 0) to_next = places(next, width, first_out, begin, end);
    std::vector<int32_t> wanted(to_logits.size());
    std::iota(wanted.begin(), wanted.end(), n - static_cast<int>(wanted.size()));
    const StepOutputs outputs{.rows = wanted, .logits = to_logits, .row_hidden = to_next};
    EDGE_RETURN_IF_ERROR(model_.step(rows, outputs, {}));
    EDGE_RETURN_IF_ERROR(kv_->commit(n));
  }
  return {};
}

}  // namespace edge
