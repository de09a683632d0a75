// c_api.h: the KV of a model, several sessions at once, long contexts.
#include <vector>

#include "api/c_support.h"

namespace {

using edge::capi::check_buffer;
using edge::capi::fail;
using edge::capi::guarded;
using edge::capi::input;
using edge::capi::required;
using edge::capi::write_out;
using edge::capi::write_struct;

// body(session) gives bytes back and says how many.
template <class Handle, class Body>
edgellm_status give_back(Handle* handle, const char* name, uint64_t* n_freed, Body&& body) {
  return guarded([&] {
    const uint64_t n_bytes = body(required(handle, name));
    if (n_freed != nullptr) *n_freed = n_bytes;
  });
}

}  // namespace

edgellm_status edgellm_model_get_kv_figures(const edgellm_model* model,
                                            edgellm_kv_figures* figures) {
  return guarded([&] {
    const edgellm::KvFigures facts = required(model, "model").model.kv_figures();
    edgellm_kv_figures out = EDGELLM_KV_FIGURES_INIT;
    out.budget_bytes = facts.budget_bytes;
    out.reserved_bytes = facts.reserved_bytes;
    out.session_bytes = facts.session_bytes;
    out.kept_bytes = facts.kept_bytes;
    out.idle_bytes = facts.idle_bytes;
    out.used_bytes = facts.used_bytes;
    out.n_reused_tokens = facts.n_reused_tokens;
    out.n_evicted_tokens = facts.n_evicted_tokens;
    out.disk_bytes = facts.disk_bytes;
    out.n_disk_written_tokens = facts.n_disk_written_tokens;
    out.n_disk_read_tokens = facts.n_disk_read_tokens;
    out.n_disk_damaged_files = facts.n_disk_damaged_files;
    out.n_disk_failed_writes = facts.n_disk_failed_writes;
    write_struct(out, figures, "figures");
  });
}

edgellm_status edgellm_model_trim(edgellm_model* model, uint64_t n_bytes, uint64_t* n_freed) {
  return give_back(model, "model", n_freed,
                   [&](edgellm_model& from) { return from.model.trim(n_bytes); });
}

edgellm_status edgellm_session_fork(const edgellm_session* session, edgellm_session** other) {
  return guarded([&] {
    required(other, "other");
    edgellm::Session made = required(session, "session").session.fork();
    *other = new edgellm_session{.session = std::move(made), .append_mutex = {}};
  });
}

edgellm_status edgellm_session_set_priority(edgellm_session* session, int32_t priority) {
  return guarded([&] { required(session, "session").session.set_priority(priority); });
}

edgellm_status edgellm_run_together(edgellm_session* const* sessions, size_t n_sessions,
                                    double budget_ms, edgellm_status* statuses, int32_t* is_done) {
  return guarded([&] {
    std::vector<edgellm::SessionRun> runs;
    for (edgellm_session* session : input(sessions, n_sessions, "sessions")) {
      runs.push_back({.session = &required(session, "a session").session});
    }
    if (n_sessions > 0) required(statuses, "statuses"), required(is_done, "is_done");
    edgellm::Session::run_together(runs, budget_ms);
    for (size_t i = 0; i < n_sessions; ++i) {
      const edgellm::SessionRun& run = runs[i];
      statuses[i] = run.error ? fail(run.error->code(), run.error->what()) : EDGELLM_OK;
      is_done[i] = run.is_done ? 1 : 0;
    }
  });
}

edgellm_status edgellm_session_shift(edgellm_session* session, int32_t n_sink, int32_t n_drop) {
  return guarded([&] { required(session, "session").session.shift(n_sink, n_drop); });
}

edgellm_status edgellm_session_stream_within(edgellm_session* session, int32_t n_sink,
                                             int32_t window) {
  return guarded([&] { required(session, "session").session.stream_within(n_sink, window); });
}

edgellm_status edgellm_session_compress(edgellm_session* session, int32_t n_keep, int32_t n_sink,
                                        int32_t window, int32_t pool) {
  return guarded(
      [&] { required(session, "session").session.compress(n_keep, n_sink, window, pool); });
}

edgellm_status edgellm_session_trim(edgellm_session* session, uint64_t n_bytes, uint64_t* n_freed) {
  return give_back(session, "session", n_freed,
                   [&](edgellm_session& from) { return from.session.trim(n_bytes); });
}

edgellm_status edgellm_session_kept_ranges(const edgellm_session* session, int32_t* ranges,
                                           size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(ranges, capacity, n_needed);
    std::vector<int32_t> numbers;
    for (const auto& [first, end] : required(session, "session").session.kept_ranges()) {
      numbers.push_back(first);
      numbers.push_back(end);
    }
    write_out(std::span<const int32_t>(numbers), ranges, capacity, n_needed);
  });
}
