#include "runtime/kv_sequence.h"

#include <string>

namespace edge {

KvSequence::KvSequence(KvCache& cache, int n_ctx)
    : cache_(cache), plan_(n_ctx, cache.groups()), page_data_(cache.groups().size()) {
  for (std::vector<std::byte*>& pages : page_data_) {
    pages.reserve(static_cast<size_t>(n_pages_for(n_ctx)));  // so that tables_ stay true
    tables_.push_back({pages.data(), 0});
  }
}

Result<std::unique_ptr<KvSequence>> KvSequence::create(KvCache& cache, int n_ctx) {
  if (n_ctx < 1) {
    return {Code::kInvalidArgument,
            "n_ctx is " + std::to_string(n_ctx) + "; it must be at least 1"};
  }
  std::unique_ptr<KvSequence> sequence(new KvSequence(cache, n_ctx));
  EDGE_RETURN_IF_ERROR(cache.reserve(n_ctx));
  sequence->promised_bytes_ = kv_bytes_for(cache.groups(), n_ctx);
  return sequence;
}

KvSequence::~KvSequence() {
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    for (const PageId page : plan_.held_pages(group)) cache_.release(page);
  }
  cache_.unclaim(promised_bytes_);
}

uint64_t KvSequence::held_bytes() const {
  uint64_t n_bytes = 0;
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    for (const PageId page : plan_.held_pages(group)) n_bytes += cache_.page_bytes(page);
  }
  return n_bytes;
}

Result<KvStepPlan> KvSequence::prepare(int n_rows) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan_.plan(n_rows));
  let_go(plan_.trim(step));
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    while (plan_.n_pages(group) < step.n_pages) {
      EDGE_ASSIGN_OR_RETURN(const PageId page,
                            cache_.take(group, static_cast<size_t>(plan_.n_pages(group))));
      plan_.attach(group, page);
      page_data_[group].push_back(cache_.data(page));
      tables_[group].n_pages = plan_.n_pages(group);
    }
  }
  return step;
}

void KvSequence::rewind(int n_tokens) {
  let_go(plan_.rewind(n_tokens));
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    tables_[group].n_pages = plan_.n_pages(group);
    page_data_[group].resize(static_cast<size_t>(plan_.n_pages(group)));
  }
}

void KvSequence::let_go(std::span<const KvPage> pages) {
  for (const KvPage& page : pages) {
    cache_.release(page.id);
    page_data_[page.group][page.number] = nullptr;
  }
}

}  // namespace edge
