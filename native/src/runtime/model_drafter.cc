#include "runtime/model_drafter.h"

#include <algorithm>
#include <utility>

namespace edge {

ModelDrafter::ModelDrafter(DrafterKind kind, std::unique_ptr<DraftRows> rows, int n_ids,
                           const Acceptance& acceptance, size_t n_bytes)
    : RowDrafter({.kind = kind,
                  .most_passes = kMostPasses,
                  .least_path = kLeastPath,
                  .n_logits = static_cast<size_t>(n_ids)},
                 std::move(rows), acceptance, n_bytes),
      n_ids_(static_cast<size_t>(n_ids)) {}

void ModelDrafter::observe(const DraftObservation& observation) {
  if (observation.n_new > 0) forget_root();
}

void ModelDrafter::begin_at(size_t token) {
  rows().rewind(0);
  first_ = token;
}

void ModelDrafter::rewind(std::span<const int32_t> tokens) {
  forget_root();
  if (tokens.size() <= first_) return begin_at(0);
  // The last token is read again: what it said is not kept.
  const auto n_kept =
      static_cast<int>(std::min(tokens.size() - first_ - 1, static_cast<size_t>(rows().n_rows())));
  rows().rewind(n_kept);  // or to 0, where windows have let go of what is before
}

bool ModelDrafter::read_committed(std::span<const int32_t> tokens) {
  const auto n_ctx = static_cast<size_t>(rows().n_ctx());
  const auto n_read = [this] { return first_ + static_cast<size_t>(rows().n_rows()); };
  const bool is_full = tokens.size() - first_ + static_cast<size_t>(most_passes()) > n_ctx;
  if (is_full || tokens.size() - n_read() > n_ctx / 2) {
    begin_at(tokens.size() - std::min(tokens.size(), n_ctx / 2));
  }
  // An id that only the other model has, behind the tokens of its tokenizer: it begins anew there.
  for (size_t at = tokens.size(); at > n_read(); --at) {
    if (static_cast<size_t>(tokens[at - 1]) < n_ids_) continue;
    begin_at(at);
    break;
  }
  return read(tokens.subspan(n_read()), {});
}

}  // namespace edge
