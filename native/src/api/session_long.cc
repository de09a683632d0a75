// Long contexts: what sessions take out of their KV, and how a model does it.
#include <utility>

#include "api/guard.h"
#include "api/with_session.h"

namespace edgellm {
namespace {

using edge::api::check;

}  // namespace

void Session::shift(int n_sink, int n_drop) {
  with_session(impl_, [&](edge::Session& session) { check(session.shift(n_sink, n_drop)); });
}

void Session::stream_within(int n_sink, int window) {
  with_session(impl_, [&](edge::Session& session) { check(session.stream(n_sink, window)); });
}

void Session::compress(int n_keep, int n_sink, int window, int pool,
                       const std::function<bool()>& should_stop) {
  with_session(impl_, [&](edge::Session& session) {
    const edge::KvCompression how{
        .n_keep = n_keep, .n_sink = n_sink, .n_window = window, .n_pool = pool};
    check(session.compress(how, should_stop));
  });
}

uint64_t Session::trim(uint64_t n_bytes) {
  return with_session(impl_, [&](edge::Session& session) { return session.trim(n_bytes); });
}

std::vector<std::pair<int32_t, int32_t>> Session::kept_ranges() const {
  return with_session(impl_, [](const edge::Session& session) {
    std::vector<std::pair<int32_t, int32_t>> ranges;
    for (const edge::TokenRange& range : session.kept_ranges()) {
      ranges.emplace_back(range.first, range.end);
    }
    return ranges;
  });
}

int Session::most_tokens_after(int n_tokens) const {
  return with_session(impl_, [&](const edge::Session& session) {
    return edge::api::take_or_throw(session.most_tokens_after(n_tokens));
  });
}

int Session::n_dropped() const {
  return with_session(impl_, [](const edge::Session& session) { return session.n_dropped(); });
}

int Model::Impl::n_kv_heads() const {
  int n_heads = 0;
  for (const edge::LayerSpec& layer : spec.layers) n_heads += layer.n_kv_heads;
  return n_heads;
}

edge::Status Model::Impl::turn_keys(const edge::KvSlotRange& slots, int n_positions) {
  const std::lock_guard lock(step_turn);
  if (is_closing) return {edge::Code::kCancelled, "the model was closed"};
  return decoder->turn_keys(slots, n_positions);
}

edge::Status Model::Impl::keep_slots(const edge::KvView& view,
                                     std::span<const std::vector<int32_t>> kept) {
  const std::lock_guard lock(step_turn);
  if (is_closing) return {edge::Code::kCancelled, "the model was closed"};
  return decoder->keep_slots(view, kept);
}

}  // namespace edgellm
