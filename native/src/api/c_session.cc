// c_api.h: sessions.
#include <optional>

#include "api/c_support.h"

namespace {

using edge::capi::check_buffer;
using edge::capi::guarded;
using edge::capi::input;
using edge::capi::path_input;
using edge::capi::raise_too_small;
using edge::capi::read_struct;
using edge::capi::refuse;
using edge::capi::required;
using edge::capi::text_input;
using edge::capi::write_out;
using edge::capi::write_struct;
using edge::capi::write_text;

edgellm::SamplerParams sampler_params(const edgellm_sampler_params* given) {
  const edgellm_sampler_params params =
      read_struct(given, edgellm_sampler_params EDGELLM_SAMPLER_PARAMS_INIT, "params");
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .seed = params.seed};
}

// run(Session&) gives n_cols(Session&) floats for each token processed; nothing runs unless the
// buffer holds those of all pending ones.
template <class Cols, class Run>
edgellm_status run_with_rows(edgellm_session* session, float* buffer, size_t capacity,
                             size_t* n_needed, size_t* n_floats, int32_t* is_done, Cols&& n_cols,
                             Run&& run) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    required(n_floats, "n_floats");
    required(is_done, "is_done");
    edgellm_session& from = required(session, "session");
    const std::lock_guard lock(from.append_mutex);
    *n_needed =
        static_cast<size_t>(from.session.n_pending()) * static_cast<size_t>(n_cols(from.session));
    if (capacity < *n_needed) raise_too_small(capacity, *n_needed);
    const std::vector<float> found = run(from.session);
    std::copy(found.begin(), found.end(), buffer);
    *n_floats = found.size();
    *is_done = from.session.n_pending() == 0 ? 1 : 0;
  });
}

}  // namespace

edgellm_status edgellm_session_create(const edgellm_model* model, int32_t n_ctx,
                                      edgellm_session** session) {
  edgellm_session_options options = EDGELLM_SESSION_OPTIONS_INIT;
  options.n_ctx = n_ctx;
  return edgellm_session_create_with(model, &options, session);
}

edgellm_status edgellm_session_create_with(const edgellm_model* model,
                                           const edgellm_session_options* options,
                                           edgellm_session** session) {
  return guarded([&] {
    required(session, "session");
    const edgellm_session_options given =
        read_struct(options, edgellm_session_options EDGELLM_SESSION_OPTIONS_INIT, "options");
    if ((given.flags & ~uint64_t{EDGELLM_SESSION_APART}) != 0) {
      refuse("options->flags is " + std::to_string(given.flags) +
             "; this library knows EDGELLM_SESSION_APART");
    }
    const edgellm::PrefixReuse reuse{
        .is_on = (given.flags & EDGELLM_SESSION_APART) == 0,
        .name_space = std::string(
            text_input(given.name_space, given.n_name_space_bytes, "options->name_space"))};
    std::optional<edgellm::Adapter> adapter;
    if (given.adapter != nullptr) adapter = given.adapter->adapter;
    edgellm::Session made(required(model, "model").model, given.n_ctx, adapter, reuse);
    made.set_priority(given.priority);
    *session = new edgellm_session{.session = std::move(made), .append_mutex = {}};
  });
}

edgellm_status edgellm_session_get_state(const edgellm_session* session,
                                         edgellm_session_state* state) {
  return guarded([&] {
    const edgellm::Session& from = required(session, "session").session;
    edgellm_session_state out = EDGELLM_SESSION_STATE_INIT;
    out.n_ctx = from.n_ctx();
    out.n_vocab = from.n_vocab();
    out.n_tokens = from.n_tokens();
    out.n_pending = from.n_pending();
    out.n_recompute = from.n_recompute();
    out.n_dropped = from.n_dropped();
    write_struct(out, state, "state");
  });
}

edgellm_status edgellm_session_token_ids(const edgellm_session* session, int32_t* ids,
                                         size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(ids, capacity, n_needed);
    const std::vector<int32_t> found = required(session, "session").session.token_ids();
    write_out(std::span(found), ids, capacity, n_needed);
  });
}

edgellm_status edgellm_session_append(edgellm_session* session, const int32_t* ids, size_t n_ids) {
  return guarded([&] {
    edgellm_session& to = required(session, "session");
    const std::lock_guard lock(to.append_mutex);
    to.session.append(input(ids, n_ids, "ids"));
  });
}

edgellm_status edgellm_session_run(edgellm_session* session, double budget_ms, int32_t* is_done) {
  return guarded([&] {
    required(is_done, "is_done");
    *is_done = required(session, "session").session.run(budget_ms) ? 1 : 0;
  });
}

edgellm_status edgellm_session_run_with_logits(edgellm_session* session, double budget_ms,
                                               float* logits, size_t capacity, size_t* n_needed,
                                               size_t* n_floats, int32_t* is_done) {
  return run_with_rows(
      session, logits, capacity, n_needed, n_floats, is_done,
      [](const edgellm::Session& from) { return from.n_vocab(); },
      [&](edgellm::Session& from) { return from.run_with_logits(budget_ms); });
}

edgellm_status edgellm_session_run_with_hidden(edgellm_session* session, double budget_ms,
                                               float* hidden, size_t capacity, size_t* n_needed,
                                               size_t* n_floats, int32_t* is_done) {
  return run_with_rows(
      session, hidden, capacity, n_needed, n_floats, is_done,
      [](const edgellm::Session& from) { return from.d_model(); },
      [&](edgellm::Session& from) { return from.run_with_hidden(budget_ms); });
}

edgellm_status edgellm_session_rewind(edgellm_session* session, int32_t n_tokens) {
  return guarded([&] { required(session, "session").session.rewind(n_tokens); });
}

edgellm_status edgellm_session_save(const edgellm_session* session, const char* path,
                                    size_t n_path_bytes, const void* note, size_t n_note_bytes) {
  return guarded([&] {
    const std::string_view kept = text_input(static_cast<const char*>(note), n_note_bytes, "note");
    required(session, "session").session.save(path_input(path, n_path_bytes), kept);
  });
}

edgellm_status edgellm_session_restore(edgellm_session* session, const char* path,
                                       size_t n_path_bytes) {
  return guarded([&] {
    edgellm_session& to = required(session, "session");
    const std::lock_guard lock(to.append_mutex);
    to.session.restore(edgellm::SessionFile::open(path_input(path, n_path_bytes)));
  });
}

edgellm_status edgellm_session_file_note(const char* path, size_t n_path_bytes, void* buffer,
                                         size_t capacity, size_t* n_needed) {
  return guarded([&] {
    char* const text = static_cast<char*>(buffer);
    check_buffer(text, capacity, n_needed);
    const auto file = edgellm::SessionFile::open(path_input(path, n_path_bytes));
    write_text(file.note(), text, capacity, n_needed);
  });
}

edgellm_status edgellm_session_logits(const edgellm_session* session, float* logits,
                                      size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(logits, capacity, n_needed);
    const std::vector<float> found = required(session, "session").session.logits();
    write_out(std::span(found), logits, capacity, n_needed);
  });
}

edgellm_status edgellm_session_sample(const edgellm_session* session,
                                      const edgellm_sampler_params* params, int64_t step,
                                      int32_t* id, double* logprob) {
  return guarded([&] {
    required(id, "id");
    const edgellm::SampledToken token =
        required(session, "session").session.sample(sampler_params(params), step);
    *id = token.id;
    if (logprob != nullptr) *logprob = token.logprob;
  });
}

edgellm_status edgellm_session_cancel(edgellm_session* session) {
  return guarded([&] { required(session, "session").session.cancel(); });
}

edgellm_status edgellm_session_get_stats(const edgellm_session* session,
                                         edgellm_session_stats* stats) {
  return guarded([&] {
    const edgellm::SessionStats facts = required(session, "session").session.stats();
    edgellm_session_stats out = EDGELLM_SESSION_STATS_INIT;
    out.n_prefill_tokens = facts.n_prefill_tokens;
    out.n_decode_tokens = facts.n_decode_tokens;
    out.n_steps = facts.n_steps;
    out.prefill_ms = facts.prefill_ms;
    out.decode_ms = facts.decode_ms;
    out.kv_bytes = facts.kv_bytes;
    out.n_recomputed_tokens = facts.n_recomputed_tokens;
    out.n_reused_tokens = facts.n_reused_tokens;
    out.n_disk_tokens = facts.n_disk_tokens;
    out.is_speculating = facts.is_speculating ? 1 : 0;
    for (const edgellm::DrafterStats& drafter : facts.drafters) {
      out.n_drafted_tokens += drafter.n_drafted;
      out.n_accepted_tokens += drafter.n_accepted;
    }
    out.saved_ms = facts.saved_ms;
    out.n_capped_steps = facts.n_capped_steps;
    write_struct(out, stats, "stats");
  });
}

edgellm_status edgellm_session_close(edgellm_session* session) {
  return guarded([&] { required(session, "session").session.close(); });
}

void edgellm_session_free(edgellm_session* session) { delete session; }
