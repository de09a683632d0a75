#include <array>
#include <string>
#include <vector>

#include "api/guard.h"
#include "api/impl.h"
#include "api/sampling.h"
#include "api/with_session.h"
#include "runtime/sampler.h"

namespace edgellm {
namespace {

using edge::Code;
using edge::api::check;
using edge::api::entry;
using edge::api::raise;
using edge::api::take_or_throw;

// A session that is ready, known to its model: close() ends it, too.
template <class Impl>
std::shared_ptr<Impl> enlisted(std::shared_ptr<Impl> impl) {
  impl->cancel_flag = impl->session->cancel_flag();
  Model::Impl& owner = *impl->model;
  const std::lock_guard lock(owner.sessions_mutex);
  owner.check_open();
  std::erase_if(owner.sessions, [](const auto& weak) { return weak.expired(); });
  owner.sessions.push_back(impl);
  return impl;
}

std::vector<DrafterStats> drafters_of(const edge::SessionStats& stats) {
  // By DrafterKind.
  static constexpr std::array<const char*, edge::kDrafterKinds> kNames = {
      "suffix", "store", "recycling", "head", "exit", "external"};
  std::vector<DrafterStats> drafters;
  for (size_t kind = 0; kind < kNames.size(); ++kind) {
    const edge::DraftCount& count = stats.drafts[kind];
    if (count.n_drafted > 0) drafters.push_back({kNames[kind], count.n_drafted, count.n_accepted});
  }
  return drafters;
}

}  // namespace

Session::Session(const Model& model, int n_ctx, const std::optional<Adapter>& adapter,
                 const PrefixReuse& reuse) {
  entry([&] {
    const std::shared_ptr<Model::Impl>& owner = model.impl();
    owner->check_open();
    const int n_ctx_most = owner->n_ctx_most;
    if (n_ctx < 0 || n_ctx > n_ctx_most) {
      const bool is_short = n_ctx_most < owner->spec.n_ctx_train;
      raise(Code::kInvalidArgument,
            "n_ctx is " + std::to_string(n_ctx) + "; it must be from 0 (the most) to " +
                std::to_string(n_ctx_most) +
                (is_short ? ", the most that the n_ctx of load() stands for; load the model with "
                            "a larger one"
                          : ", the positions the model was trained for"));
    }
    auto impl = std::make_shared<Impl>();
    impl->model = owner;
    impl->name_space = reuse.name_space;
    impl->reuses_prefix = reuse.is_on;
    impl->adapter = checked_adapter(adapter, owner);
    impl->session = take_or_throw(
        edge::Session::create(*owner->batcher, *owner->cache,
                              {.n_ctx = n_ctx == 0 ? n_ctx_most : n_ctx,
                               .adapter = impl->adapter ? &impl->adapter->adapter : nullptr,
                               .tree = reuse.is_on ? &*owner->tree : nullptr,
                               .key = impl->prefix_key()}));
    impl->begin_speculation();
    impl_ = enlisted(std::move(impl));
  });
}

Session Session::fork() const {
  return with_session(impl_, [&](const edge::Session& session) {
    auto impl = std::make_shared<Impl>();
    impl->model = impl_->model;
    impl->name_space = impl_->name_space;
    impl->reuses_prefix = impl_->reuses_prefix;
    impl->adapter = impl_->adapter;
    impl->session = take_or_throw(session.fork());
    return Session(enlisted(std::move(impl)));
  });
}

int Session::n_ctx() const {
  return with_session(impl_, [](const edge::Session& session) { return session.n_ctx(); });
}

int Session::n_vocab() const { return impl_->model->info.n_vocab; }

int Session::d_model() const { return impl_->model->info.d_model; }

int Session::n_tokens() const {
  return with_session(impl_, [](const edge::Session& session) { return session.n_tokens(); });
}

int Session::n_pending() const {
  return with_session(impl_, [](const edge::Session& session) { return session.n_pending(); });
}

int Session::n_recompute() const {
  return with_session(impl_, [](const edge::Session& session) { return session.n_recompute(); });
}

std::vector<int32_t> Session::token_ids() const {
  return with_session(impl_, [](const edge::Session& session) {
    const std::span<const int32_t> ids = session.token_ids();
    return std::vector<int32_t>(ids.begin(), ids.end());
  });
}

void Session::append(std::span<const int32_t> ids) {
  with_session(impl_, [&](edge::Session& session) { check(session.append(ids)); });
}

bool Session::run(double budget_ms, const std::function<bool()>& should_stop) {
  return with_session(impl_, [&](edge::Session& session) {
    check(session.run(budget_ms, nullptr, should_stop));
    return session.n_pending() == 0;
  });
}

std::vector<float> Session::run_with_logits(double budget_ms,
                                            const std::function<bool()>& should_stop) {
  return with_session(impl_, [&](edge::Session& session) {
    std::vector<float> logits;
    check(session.run(budget_ms, &logits, should_stop));
    return logits;
  });
}

std::vector<float> Session::run_with_hidden(double budget_ms,
                                            const std::function<bool()>& should_stop) {
  return with_session(impl_, [&](edge::Session& session) {
    std::vector<float> hidden;
    check(session.run_with_hidden(budget_ms, hidden, should_stop));
    return hidden;
  });
}

void Session::rewind(int n_tokens) {
  with_session(impl_, [&](edge::Session& session) { check(session.rewind(n_tokens)); });
}

void Session::set_priority(int priority) {
  with_session(impl_, [&](edge::Session& session) { session.set_priority(priority); });
}

void Session::set_adapter(const std::optional<Adapter>& adapter) {
  with_session(impl_, [&](edge::Session& session) {
    std::shared_ptr<const Adapter::Impl> next = checked_adapter(adapter, impl_->model);
    const std::string_view before = impl_->adapter ? impl_->adapter->info.root : std::string_view();
    if (before == (next ? std::string_view(next->info.root) : std::string_view())) return;
    impl_->adapter.swap(next);
    const edge::Adapter* const internal = impl_->adapter ? &impl_->adapter->adapter : nullptr;
    check(session.set_adapter(internal, impl_->prefix_key()));
  });
}

void Session::save(const std::string& path, std::string_view note) const {
  with_session(impl_, [&](edge::Session& session) {
    const edge::SessionIdentity identity = impl_->model->identity_with(impl_->adapter.get());
    check(session.save(path, identity, note, impl_->model->info.n_threads));
  });
}

Metadata Session::identity() const {
  return with_session(impl_, [&](const edge::Session&) {
    return impl_->model->identity_with(impl_->adapter.get()).items();
  });
}

void Session::restore(const SessionFile& file) {
  with_session(impl_, [&](edge::Session& session) {
    const edge::SessionIdentity identity = impl_->model->identity_with(impl_->adapter.get());
    check(session.restore(*file.impl()->file, identity, impl_->model->info.n_threads));
  });
}

std::vector<float> Session::logits() const {
  return with_session(impl_, [](edge::Session& session) {
    const std::span<const float> logits = take_or_throw(session.logits());
    return std::vector<float>(logits.begin(), logits.end());
  });
}

SampledToken Session::sample(const SamplerParams& params, int64_t step, int64_t n_prompt,
                             std::span<const uint32_t> allowed) const {
  return with_session(impl_, [&](edge::Session& session) {
    return edge::api::sample_next(session, params, step, n_prompt, allowed);
  });
}

std::vector<SampledToken> Session::top_logprobs(int64_t k) const {
  return with_session(impl_, [&](edge::Session& session) {
    const edge::TopTokens* top = session.top();
    std::vector<SampledToken> best;
    for (const edge::SampledToken& token :
         top != nullptr && k >= 0 && k <= top->n
             ? edge::logprobs_of(*top, k)
             : take_or_throw(edge::top_logprobs(take_or_throw(session.logits()), k))) {
      best.push_back({token.id, token.logprob});
    }
    return best;
  });
}

void Session::cancel() { impl_->cancel_flag->store(true); }

SessionStats Session::stats() const {
  return with_session(impl_, [](const edge::Session& session) {
    const edge::SessionStats stats = session.stats();
    return SessionStats{.n_prefill_tokens = stats.n_prefill_tokens,
                        .n_decode_tokens = stats.n_decode_tokens,
                        .n_steps = stats.n_steps,
                        .n_reused_tokens = stats.n_reused_tokens,
                        .n_disk_tokens = stats.n_disk_tokens,
                        .n_recomputed_tokens = stats.n_recomputed_tokens,
                        .prefill_ms = stats.prefill_ms,
                        .decode_ms = stats.decode_ms,
                        .kv_bytes = stats.kv_bytes,
                        .is_speculating = session.has_drafts(),
                        .drafters = drafters_of(stats),
                        .saved_ms = stats.saved_ms,
                        .n_capped_steps = stats.n_capped_steps};
  });
}

// All that pages depend on besides the ids and the model.
std::string Session::Impl::prefix_key() const {
  return (adapter ? adapter->info.root : std::string()) + '/' + name_space;
}

edge::Session& Session::Impl::open_session() const {
  if (!session) {
    raise(Code::kInvalidArgument,
          model->is_closing
              ? "the model of the session is closed"
              : "the session is closed, or was running in another thread when this process forked");
  }
  return *session;
}

// What another thread was changing at the fork is not even fit to be destroyed.
void Session::Impl::take_back() {
  if (turn.take_back()) static_cast<void>(session.release());
}

void Session::close() {
  entry([&] {
    impl_->cancel_flag->store(true);  // ends a run() under way in another thread
    const std::lock_guard lock(impl_->turn);
    impl_->session.reset();
  });
}

}  // namespace edgellm
