// Calls for several sessions at once, from one thread.
#include <algorithm>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "api/guard.h"
#include "api/impl.h"
#include "api/sampling.h"
#include "base/thread_pool.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::api::entry;
using edge::api::raise;

using Turns = std::vector<std::unique_lock<edge::Turn>>;

// The turns of all sessions, taken in one order for all callers, or two of them could wait for each
// other. Throws unless all are of one model and none is there twice.
Turns take_turns(std::vector<Session::Impl*> sessions) {
  std::ranges::sort(sessions);
  Turns turns;
  for (size_t i = 0; i < sessions.size(); ++i) {
    if (sessions[i]->model != sessions[0]->model) {
      raise(Code::kInvalidArgument, "the sessions are not all of one model");
    }
    if (i > 0 && sessions[i] == sessions[i - 1]) {
      raise(Code::kInvalidArgument, "a session is named twice");
    }
  }
  for (Session::Impl* session : sessions) turns.emplace_back(session->turn);
  return turns;
}

}  // namespace

void Session::run_together(std::span<SessionRun> runs, double budget_ms,
                           const std::function<bool()>& should_stop) {
  entry([&] {
    std::vector<Session::Impl*> impls;
    for (const SessionRun& run : runs) impls.push_back(run.session->impl_.get());
    const Turns turns = take_turns(impls);
    std::vector<edge::Session::Run> inner;
    std::vector<SessionRun*> open;
    for (SessionRun& run : runs) {
      run.is_done = false;
      run.rows.clear();
      run.error.reset();
      try {
        edge::Session& session = run.session->impl_->open_session();
        inner.push_back({.session = &session,
                         .logits = run.keep == Keep::kLogits ? &run.rows : nullptr,
                         .hidden = run.keep == Keep::kHidden ? &run.rows : nullptr});
        open.push_back(&run);
      } catch (const Error& error) {
        run.error = error;
      }
    }
    edge::Session::run_together(inner, budget_ms, should_stop);
    for (size_t i = 0; i < inner.size(); ++i) {
      const edge::Status& status = inner[i].status;
      if (!status.is_ok()) {
        open[i]->error.emplace(edge::code_name(status.code()), edge::code_class(status.code()),
                               status.message());
      }
      open[i]->is_done = inner[i].session->n_pending() == 0;
    }
  });
}

std::vector<std::optional<SampledToken>> Session::sample_together(
    std::span<const Session* const> sessions, std::span<const SamplerParams* const> params,
    std::span<const int64_t> n_prompts, std::span<const std::span<const uint32_t>> allowed) {
  return entry([&] {
    if (params.size() != sessions.size() || n_prompts.size() != sessions.size() ||
        (!allowed.empty() && allowed.size() != sessions.size())) {
      raise(Code::kInvalidArgument,
            std::to_string(sessions.size()) + " sessions, " + std::to_string(params.size()) +
                " params, " + std::to_string(n_prompts.size()) + " n_prompts and " +
                std::to_string(allowed.size()) + " allowed; there must be as many of each");
    }
    std::vector<std::optional<SampledToken>> tokens(sessions.size());
    if (sessions.empty()) return tokens;
    std::vector<Session::Impl*> impls;
    for (const Session* session : sessions) impls.push_back(session->impl_.get());
    const Turns turns = take_turns(impls);
    const auto allowed_of = [&](size_t at) {
      return allowed.empty() ? std::span<const uint32_t>() : allowed[at];
    };
    for (size_t at = 0; at < impls.size(); ++at) {
      if (impls[at]->session) {
        edge::api::prepare_sample(*impls[at]->session, *params[at], allowed_of(at));
      }
    }
    const auto sample_one = [&](int64_t unit, int) {
      const auto at = static_cast<size_t>(unit);
      try {
        tokens[at] = edge::api::sample_next(impls[at]->open_session(), *params[at], -1,
                                            n_prompts[at], allowed_of(at));
      } catch (const Error&) {
        tokens[at].reset();
      } catch (const std::bad_alloc&) {
        tokens[at].reset();
      }
    };
    edge::parallel_for(impls[0]->model->info.n_threads, static_cast<int64_t>(sessions.size()),
                       sample_one);
    return tokens;
  });
}

}  // namespace edgellm
