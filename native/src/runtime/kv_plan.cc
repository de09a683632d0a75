#include "runtime/kv_plan.h"

#include <string>

#include "backends/kv_layout.h"

namespace edge {

int n_pages_for(int n_tokens) { return n_tokens / kPageTokens + (n_tokens % kPageTokens != 0); }

// All the room at once: attach() cannot fail half-way.
KvPlan::KvPlan(int n_ctx) : n_ctx_(n_ctx) {
  pages_.reserve(static_cast<size_t>(n_pages_for(n_ctx)));
}

Result<KvStepPlan> KvPlan::plan(int n_new_tokens) const {
  if (n_new_tokens <= 0) {
    return {Code::kInvalidArgument, "a step needs at least one token"};
  }
  if (n_new_tokens > n_ctx_ - n_tokens_) {
    return {Code::kContextOverflow, std::to_string(n_tokens_) + " tokens and " +
                                        std::to_string(n_new_tokens) +
                                        " more exceed the context of " + std::to_string(n_ctx_) +
                                        "; rewind, or make a session with a larger n_ctx"};
  }
  const int n_needed = n_pages_for(n_tokens_ + n_new_tokens);
  const int n_held = static_cast<int>(pages_.size());
  return KvStepPlan{n_tokens_, n_new_tokens, n_needed > n_held ? n_needed - n_held : 0};
}

Status KvPlan::commit(int n_new_tokens) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan(n_new_tokens));
  if (step.n_new_pages != 0) {
    return {Code::kInvalidArgument, std::to_string(step.n_new_pages) + " pages are not attached"};
  }
  n_tokens_ += n_new_tokens;
  return Status::ok();
}

Result<std::vector<PageId>> KvPlan::rewind(int n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_) {
    return {Code::kInvalidArgument, "rewind to " + std::to_string(n_tokens) +
                                        ": must be from 0 to " + std::to_string(n_tokens_) +
                                        ", the tokens processed"};
  }
  std::vector<PageId> let_go;
  const size_t n_kept = static_cast<size_t>(n_pages_for(n_tokens));
  while (pages_.size() > n_kept) {
    let_go.push_back(pages_.back());
    pages_.pop_back();
  }
  n_tokens_ = n_tokens;
  return let_go;
}

}  // namespace edge
