#include "runtime/head_drafter.h"

#include <algorithm>
#include <utility>

namespace edge {

HeadDrafter::HeadDrafter(std::unique_ptr<DraftRows> rows, std::span<const int32_t> ids,
                         const Acceptance& acceptance, size_t n_head_bytes)
    : RowDrafter({.kind = DrafterKind::kHead,
                  .most_passes = kMostPasses,
                  .least_path = kLeastPath,
                  .ids = ids,
                  .n_logits = ids.size(),
                  .temperature = kTemperature},
                 std::move(rows), acceptance, n_head_bytes) {}

void HeadDrafter::observe(const DraftObservation& observation) {
  const auto width = static_cast<size_t>(rows().width());
  const size_t n = observation.n_new;
  n_tokens_ = observation.tokens.size();
  if (n == 0 || has_failed()) return;
  forget_root();
  // Without their hidden states the head has no rows of these, and begins again behind them.
  if (observation.hidden.size() != n * width) return forget(n_tokens_);
  const std::span<const int32_t> tokens = observation.tokens.last(n);
  unread_.insert(unread_.end(), tokens.begin(), tokens.end());
  hidden_.insert(hidden_.end(), observation.hidden.begin(), observation.hidden.end());
  const size_t n_room = std::min(kMostUnread, static_cast<size_t>(rows().n_ctx() - most_passes()));
  const auto n_rows = static_cast<size_t>(rows().n_rows());
  if (unread_.size() > n_room || n_rows + unread_.size() + static_cast<size_t>(most_passes()) >
                                     static_cast<size_t>(rows().n_ctx())) {
    const size_t n_kept = std::min(unread_.size(), n_room);
    unread_.erase(unread_.begin(), unread_.end() - static_cast<ptrdiff_t>(n_kept));
    hidden_.erase(hidden_.begin(), hidden_.end() - static_cast<ptrdiff_t>(n_kept * width));
    rows().rewind(0);
    first_ = n_tokens_ - n_kept;
  }
}

void HeadDrafter::forget(size_t n_tokens) {
  unread_.clear();
  hidden_.clear();
  rows().rewind(0);
  first_ = n_tokens_ = n_tokens;
  forget_root();
}

void HeadDrafter::rewind(std::span<const int32_t> tokens) {
  const size_t n = tokens.size();
  if (n >= n_tokens_) return;
  if (n <= first_) return forget(n);
  const auto n_rows = static_cast<size_t>(rows().n_rows());
  const size_t n_kept = n - first_;  // of rows and of what is unread
  if (n_kept <= n_rows) rows().rewind(static_cast<int>(n_kept));
  const size_t n_unread = n_kept > n_rows ? n_kept - n_rows : 0;
  unread_.resize(n_unread);
  hidden_.resize(n_unread * static_cast<size_t>(rows().width()));
  n_tokens_ = n;
  forget_root();
}

size_t HeadDrafter::memory_bytes() const {
  return RowDrafter::memory_bytes() + unread_.capacity() * sizeof(int32_t) +
         hidden_.capacity() * sizeof(float);
}

bool HeadDrafter::read_committed(std::span<const int32_t> tokens) {
  if (tokens.size() != n_tokens_) return false;
  const bool is_read = read(unread_, hidden_);
  unread_.clear();
  hidden_.clear();
  return is_read;
}

}  // namespace edge
