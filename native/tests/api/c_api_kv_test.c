/* The C interface to KV: what texts share, several at once, long contexts; argv[1] is the demo. */
#include <stddef.h>

#include "c_api_check.h"

enum { N_PROMPT = 150, N_MORE = 6 };

/* Ids that begin alike for every `other`, and then differ. */
static void fill_ids(int32_t* ids, int n, int other) {
  for (int i = 0; i < n; ++i) ids[i] = 5 + (i * 37 + (i < 64 ? 0 : other * 11)) % 900;
}

static edgellm_session* session_of(const edgellm_model* model, edgellm_session_options options,
                                   const int32_t* ids, int n_ids) {
  edgellm_session* session = NULL;
  CHECK_OK(edgellm_session_create_with(model, &options, &session));
  CHECK_OK(edgellm_session_append(session, ids, (size_t)n_ids));
  return session;
}

static int64_t reused_by(const edgellm_session* session) {
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  CHECK_OK(edgellm_session_get_stats(session, &stats));
  return stats.n_reused_tokens;
}

/* The logits of the last token, to be freed. */
static float* logits_of(const edgellm_session* session, size_t* n) {
  CHECK_OK(edgellm_session_logits(session, NULL, 0, n));
  float* logits = malloc(*n * sizeof *logits);
  CHECK_OK(edgellm_session_logits(session, logits, *n, n));
  return logits;
}

static void check_same_logits(const edgellm_session* one, const edgellm_session* other) {
  size_t n = 0, n_other = 0;
  float *logits = logits_of(one, &n), *others = logits_of(other, &n_other);
  CHECK(n == n_other && memcmp(logits, others, n * sizeof *logits) == 0);
  free(logits);
  free(others);
}

static void test_nulls(edgellm_model* model) {
  edgellm_session* session = NULL;
  edgellm_session* const none[] = {NULL};
  edgellm_status status = EDGELLM_OK;
  int32_t is_done = 0;
  size_t n = 0;
  CHECK_ERROR(edgellm_model_get_kv_figures(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_get_kv_figures(model, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_trim(NULL, 1, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_create_with(NULL, NULL, &session), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_create_with(model, NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_fork(NULL, &session), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_set_priority(NULL, 1), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_shift(NULL, 32, 32), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_stream_within(NULL, 32, 32), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_compress(NULL, 64, 4, 32, 7), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_trim(NULL, 1, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_kept_ranges(NULL, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_run_together(NULL, 1, 1, &status, &is_done), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_run_together(none, 1, 1, &status, &is_done), INVALID_ARGUMENT);
  CHECK_OK(edgellm_run_together(NULL, 0, 1, NULL, NULL));
  CHECK_OK(edgellm_session_create_with(model, NULL, &session));
  CHECK_ERROR(edgellm_session_fork(session, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_run_together(&session, 1, 1, NULL, &is_done), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_run_together(&session, 1, 1, &status, NULL), INVALID_ARGUMENT);
  edgellm_session_free(session);
}

static void test_session_options(const edgellm_model* model) {
  edgellm_session_options options = EDGELLM_SESSION_OPTIONS_INIT;
  edgellm_session* session = NULL;
  options.flags = 2;
  CHECK_ERROR(edgellm_session_create_with(model, &options, &session), INVALID_ARGUMENT);
  options.flags = 0;
  options.n_name_space_bytes = 3;
  CHECK_ERROR(edgellm_session_create_with(model, &options, &session), INVALID_ARGUMENT);
  options.n_name_space_bytes = 0;
  options.n_ctx = -1;
  CHECK_ERROR(edgellm_session_create_with(model, &options, &session), INVALID_ARGUMENT);
  options.struct_size = 8;
  CHECK_ERROR(edgellm_session_create_with(model, &options, &session), INVALID_ARGUMENT);
  CHECK(session == NULL);
}

/* Programs that were built against the structs of the first version. */
static void test_shorter_structs(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  edgellm_session* session = NULL;
  edgellm_model* model = NULL;
  options.struct_size = offsetof(edgellm_load_options, latency_budget_ms);
  options.latency_budget_ms = -1; /* not theirs: not read */
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  CHECK_OK(edgellm_session_create(model, 8, &session));
  stats.struct_size = offsetof(edgellm_session_stats, n_reused_tokens);
  stats.n_reused_tokens = 77; /* nor written */
  CHECK_OK(edgellm_session_get_stats(session, &stats));
  CHECK(stats.n_reused_tokens == 77);
  stats.struct_size -= 8;
  CHECK_ERROR(edgellm_session_get_stats(session, &stats), INVALID_ARGUMENT);
  edgellm_session_free(session);
  edgellm_model_free(model);
}

static void test_formats_and_figures(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model_info info = EDGELLM_MODEL_INFO_INIT;
  edgellm_kv_figures figures = EDGELLM_KV_FIGURES_INIT;
  edgellm_session_options apart = EDGELLM_SESSION_OPTIONS_INIT;
  const char* const formats[] = {"K8V8", "F16", "K8V8", "K8V4", "K6V4"};
  edgellm_model* model = NULL;
  int32_t ids[N_PROMPT];
  uint64_t n_freed = 7;
  fill_ids(ids, N_PROMPT, 0);
  for (options.kv_format = EDGELLM_KV_DEFAULT; options.kv_format <= EDGELLM_KV_K6V4;
       ++options.kv_format) {
    CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
    CHECK_OK(edgellm_model_get_info(model, &info));
    CHECK(strcmp(info.kv_format, formats[options.kv_format]) == 0);
    edgellm_model_free(model);
    model = NULL;
  }
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.kv_format = EDGELLM_KV_K8V8;
  options.latency_budget_ms = -1;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.latency_budget_ms = 50;
  options.speculate = EDGELLM_SPECULATE_OFF; /* what guesses keep of a text is no KV */
  options.prefix_cache_bytes = EDGELLM_NO_PREFIX_CACHE;
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  CHECK_OK(edgellm_model_get_info(model, &info));
  CHECK(strcmp(info.kv_format, "K8V8") == 0);
  CHECK(info.session_bytes == (uint64_t)info.n_vocab * sizeof(float));
  edgellm_session* session = session_of(model, apart, ids, N_PROMPT);
  run_all(session);
  CHECK_OK(edgellm_model_get_kv_figures(model, &figures));
  CHECK(figures.used_bytes > 0 && figures.idle_bytes == 0);
  CHECK(figures.session_bytes == info.session_bytes);
  edgellm_session_free(session);
  CHECK_OK(edgellm_model_get_kv_figures(model, &figures));
  CHECK(figures.used_bytes == 0 && figures.reserved_bytes == 0); /* nothing is kept */
  CHECK_OK(edgellm_model_trim(model, UINT64_MAX, &n_freed));
  CHECK(n_freed == 0);
  edgellm_model_free(model);
}

static void test_what_texts_share(edgellm_model* model) {
  edgellm_session_options plain = EDGELLM_SESSION_OPTIONS_INIT, named = plain, apart = plain;
  edgellm_kv_figures figures = EDGELLM_KV_FIGURES_INIT;
  edgellm_session* fork = NULL;
  int32_t ids[N_PROMPT];
  uint64_t n_freed = 0;
  fill_ids(ids, N_PROMPT, 0);
  named.name_space = "tenant";
  named.n_name_space_bytes = 6;
  apart.flags = EDGELLM_SESSION_APART;
  edgellm_session* first = session_of(model, plain, ids, N_PROMPT);
  run_all(first);
  edgellm_session* sessions[] = {
      session_of(model, plain, ids, N_PROMPT), session_of(model, named, ids, N_PROMPT),
      session_of(model, named, ids, N_PROMPT), session_of(model, apart, ids, N_PROMPT)};
  const int64_t n_reused[] = {N_PROMPT / 16 * 16, 0, N_PROMPT / 16 * 16, 0};
  for (int i = 0; i < 4; ++i) {
    run_all(sessions[i]);
    CHECK(reused_by(sessions[i]) == n_reused[i]);
    check_same_logits(first, sessions[i]);
  }
  CHECK_OK(edgellm_session_fork(first, &fork));
  CHECK_OK(edgellm_session_append(fork, ids, N_MORE));
  CHECK_OK(edgellm_session_append(first, ids, N_MORE));
  run_all(fork);
  run_all(first);
  check_same_logits(first, fork);
  edgellm_session_free(fork);
  edgellm_session_free(first);
  for (int i = 0; i < 4; ++i) edgellm_session_free(sessions[i]);
  CHECK_OK(edgellm_model_get_kv_figures(model, &figures));
  CHECK(figures.idle_bytes > 0 && figures.idle_bytes == figures.used_bytes);
  CHECK(figures.n_reused_tokens >= 2 * (N_PROMPT / 16 * 16));
  CHECK_OK(edgellm_model_trim(model, UINT64_MAX, &n_freed));
  CHECK(n_freed == figures.idle_bytes);
}

/* Each has what it has alone; the error of one is its own. */
static void test_several_at_once(edgellm_model* model) {
  enum { N = 4 };
  edgellm_session_options apart = EDGELLM_SESSION_OPTIONS_INIT;
  edgellm_session *sessions[N], *alone[N];
  edgellm_status statuses[N];
  int32_t is_done[N] = {0}, ids[N_PROMPT];
  apart.flags = EDGELLM_SESSION_APART;
  for (int i = 0; i < N; ++i) {
    fill_ids(ids, N_PROMPT, i);
    apart.priority = i;
    sessions[i] = session_of(model, apart, ids, N_PROMPT - 20 * i);
    alone[i] = session_of(model, apart, ids, N_PROMPT - 20 * i);
    run_all(alone[i]);
  }
  CHECK_OK(edgellm_session_set_priority(sessions[0], -1));
  CHECK_OK(edgellm_session_cancel(sessions[3]));
  CHECK_OK(edgellm_run_together(sessions, N, 0, statuses, is_done));
  CHECK(statuses[3] == EDGELLM_ERROR_CANCELLED);
  CHECK(statuses[0] == EDGELLM_OK && statuses[1] == EDGELLM_OK && statuses[2] == EDGELLM_OK);
  for (int i = 0; i < N; i += is_done[i]) {
    CHECK_OK(edgellm_run_together(sessions, N, 1e9, statuses, is_done));
    if (statuses[i] != EDGELLM_OK) break;
  }
  for (int i = 0; i < N; ++i) {
    check_same_logits(sessions[i], alone[i]);
    edgellm_session_free(alone[i]);
  }
  edgellm_session* const twice[] = {sessions[0], sessions[0]};
  CHECK_ERROR(edgellm_run_together(twice, 2, 0, statuses, is_done), INVALID_ARGUMENT);
  for (int i = 0; i < N; ++i) edgellm_session_free(sessions[i]);
}

static edgellm_session_state state_of(const edgellm_session* session) {
  edgellm_session_state state = EDGELLM_SESSION_STATE_INIT;
  CHECK_OK(edgellm_session_get_state(session, &state));
  return state;
}

static void test_long_contexts(edgellm_model* model) {
  edgellm_session_options options = EDGELLM_SESSION_OPTIONS_INIT;
  int32_t ids[N_PROMPT], ranges[64] = {0};
  uint64_t n_freed = 0;
  size_t n = 0;
  fill_ids(ids, N_PROMPT, 0);
  options.n_ctx = 160;
  edgellm_session* session = session_of(model, options, ids, N_PROMPT);
  run_all(session);
  CHECK_OK(edgellm_session_kept_ranges(session, ranges, 64, &n));
  CHECK(n == 2 && ranges[0] == 0 && ranges[1] == N_PROMPT);
  CHECK_ERROR(edgellm_session_shift(session, 31, 32), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_shift(session, 32, 64));
  CHECK_OK(edgellm_session_kept_ranges(session, ranges, 64, &n));
  CHECK(n == 4 && ranges[1] == 32 && ranges[2] == 96 && ranges[3] == N_PROMPT);
  CHECK(state_of(session).n_dropped == 64 && state_of(session).n_tokens == N_PROMPT);
  CHECK_ERROR(edgellm_session_compress(session, 64, 4, 32, 7), FEATURE_UNSUPPORTED);
  edgellm_session_free(session);

  session = session_of(model, options, ids, N_PROMPT);
  run_all(session);
  CHECK_ERROR(edgellm_session_compress(session, 0, 4, 32, 7), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_compress(session, 50, 4, 32, 7));
  CHECK(state_of(session).n_dropped == N_PROMPT - 50);
  CHECK_ERROR(edgellm_session_kept_ranges(session, ranges, 1, &n), BUFFER_TOO_SMALL);
  CHECK_OK(edgellm_session_append(session, ids, 100)); /* beyond n_ctx, within its slots */
  CHECK_ERROR(edgellm_session_append(session, ids, 11), CONTEXT_OVERFLOW);
  run_all(session);
  CHECK_ERROR(edgellm_session_stream_within(session, 32, 64), FEATURE_UNSUPPORTED);
  edgellm_session_free(session);

  session = session_of(model, options, ids, N_PROMPT);
  CHECK_ERROR(edgellm_session_stream_within(session, 32, 128), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_stream_within(session, 32, 64));
  CHECK_OK(edgellm_session_append(session, ids, N_PROMPT));
  run_all(session);
  CHECK(state_of(session).n_tokens == 2 * N_PROMPT && state_of(session).n_dropped >= 140);
  edgellm_session_free(session);

  edgellm_session* untouched = session_of(model, options, ids, N_PROMPT);
  run_all(untouched);
  options.flags = EDGELLM_SESSION_APART;
  session = session_of(model, options, ids, N_PROMPT);
  run_all(session);
  CHECK_OK(edgellm_session_trim(session, UINT64_MAX, &n_freed));
  CHECK(n_freed > 0);
  CHECK(state_of(session).n_recompute == N_PROMPT && state_of(session).n_tokens == N_PROMPT);
  CHECK_OK(edgellm_session_append(session, ids, N_MORE));
  CHECK_OK(edgellm_session_append(untouched, ids, N_MORE));
  run_all(session);
  run_all(untouched);
  CHECK(state_of(session).n_recompute == 0);
  check_same_logits(session, untouched);
  edgellm_session_free(untouched);
  edgellm_session_free(session);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: test_c_api_kv MODEL\n");
    return 2;
  }
  edgellm_model* model = load(argv[1]);
  test_nulls(model);
  test_session_options(model);
  test_shorter_structs(argv[1]);
  test_formats_and_figures(argv[1]);
  test_what_texts_share(model);
  test_several_at_once(model);
  edgellm_model_free(model);
  /* Pages large enough for a session's to fill a slab, which trimming gives back. */
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  options.kv_format = EDGELLM_KV_F16;
  CHECK_OK(edgellm_model_load(argv[1], strlen(argv[1]), &options, &model));
  test_long_contexts(model);
  edgellm_model_free(model);
  printf(n_failures == 0 ? "ok\n" : "%d failures\n", n_failures);
  return n_failures != 0;
}
