/* The C interface to speculation; argv[1] is the demo. */
#include <stddef.h>

#include "c_api_check.h"

enum { N_PROMPT = 12, N_NEW = 60 };

/* Greedy, token by token, after a prompt that repeats itself. */
static void generate(const edgellm_model* model, int is_on, int32_t* ids,
                     edgellm_session_stats* stats) {
  edgellm_session* session = NULL;
  edgellm_drafter_stats drafter = EDGELLM_DRAFTER_STATS_INIT;
  int64_t n_drafted = 0, n_accepted = 0;
  size_t n_drafters = 0;
  int32_t prompt[N_PROMPT];
  for (int i = 0; i < N_PROMPT; ++i) prompt[i] = 40 + i % 4;
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_OK(edgellm_session_set_speculation(session, is_on));
  CHECK_OK(edgellm_session_append(session, prompt, N_PROMPT));
  for (int i = 0; i < N_NEW; ++i) {
    run_all(session);
    CHECK_OK(edgellm_session_sample(session, NULL, -1, &ids[i], NULL));
    CHECK_OK(edgellm_session_append(session, &ids[i], 1));
  }
  CHECK_OK(edgellm_session_get_stats(session, stats));
  CHECK_OK(edgellm_session_get_drafter_stats(session, 0, &drafter, &n_drafters));
  for (size_t i = 0; i < n_drafters; ++i) {
    CHECK_OK(edgellm_session_get_drafter_stats(session, i, &drafter, &n_drafters));
    CHECK(drafter.n_drafted_tokens > 0 && strlen(drafter.name) > 3);
    n_drafted += drafter.n_drafted_tokens;
    n_accepted += drafter.n_accepted_tokens;
  }
  CHECK(n_drafted == stats->n_drafted_tokens && n_accepted == stats->n_accepted_tokens);
  edgellm_session_free(session);
}

static void test_same_tokens(const edgellm_model* model) {
  edgellm_session_stats plain = EDGELLM_SESSION_STATS_INIT, guessed = EDGELLM_SESSION_STATS_INIT;
  int32_t ids[N_NEW], again[N_NEW];
  generate(model, 0, ids, &plain);
  CHECK(plain.is_speculating == 0 && plain.n_drafted_tokens == 0 && plain.n_accepted_tokens == 0);
  for (int round = 0; round < 2; ++round) {
    generate(model, 1, again, &guessed);
    CHECK(memcmp(ids, again, sizeof ids) == 0);
    CHECK(guessed.is_speculating == 1);
    CHECK(guessed.n_decode_tokens == plain.n_decode_tokens);
  }
  CHECK(guessed.n_accepted_tokens > 0);
  CHECK(guessed.n_steps + guessed.n_accepted_tokens == plain.n_steps);
}

static void test_options(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  edgellm_session* session = NULL;
  edgellm_model* model = NULL;
  for (options.speculate = EDGELLM_SPECULATE_OFF; options.speculate <= EDGELLM_SPECULATE_ALWAYS;
       ++options.speculate) {
    CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
    CHECK_OK(edgellm_session_create(model, 8, &session));
    CHECK_OK(edgellm_session_get_stats(session, &stats));
    CHECK(stats.is_speculating == (options.speculate != EDGELLM_SPECULATE_OFF));
    edgellm_session_free(session);
    edgellm_model_free(model);
    model = NULL;
  }
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
}

/* The draft model is freed before anything is generated: what needs it keeps it. */
static void test_small_models(const char* path, const edgellm_model* plain_model) {
  edgellm_session_stats plain = EDGELLM_SESSION_STATS_INIT, guessed = EDGELLM_SESSION_STATS_INIT;
  int32_t ids[N_NEW], again[N_NEW];
  generate(plain_model, 0, ids, &plain);
  for (int is_exit = 0; is_exit < 2; ++is_exit) {
    edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
    edgellm_model* model = NULL;
    edgellm_model* draft = is_exit ? NULL : load(path);
    options.speculate = EDGELLM_SPECULATE_ALWAYS;
    options.draft_model = draft;
    options.draft_layers = is_exit;
    CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
    edgellm_model_free(draft);
    if (model == NULL) return;
    generate(model, 1, again, &guessed);
    CHECK(memcmp(ids, again, sizeof ids) == 0);
    CHECK(guessed.n_drafted_tokens > 0);
    edgellm_model_free(model);
    options.draft_layers = -1;
    options.draft_model = NULL;
    CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  }
}

static void test_nonsense(const edgellm_model* model) {
  edgellm_session_options options = EDGELLM_SESSION_OPTIONS_INIT;
  edgellm_drafter_stats drafter = EDGELLM_DRAFTER_STATS_INIT;
  edgellm_session* session = NULL;
  size_t n = 0;
  CHECK_ERROR(edgellm_session_set_speculation(NULL, 1), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_get_drafter_stats(NULL, 0, &drafter, &n), INVALID_ARGUMENT);
  options.n_ctx = 8;
  options.name_space = "tenant";
  options.n_name_space_bytes = 6;
  CHECK_OK(edgellm_session_create_with(model, &options, &session));
  CHECK_ERROR(edgellm_session_get_drafter_stats(session, 0, &drafter, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_set_speculation(session, 2), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_set_speculation(session, 1), FEATURE_UNSUPPORTED);
  CHECK_OK(edgellm_session_set_speculation(session, 0));
  edgellm_session_free(session);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: test_c_api_speculation MODEL\n");
    return 2;
  }
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  options.speculate = EDGELLM_SPECULATE_ALWAYS;
  CHECK_OK(edgellm_model_load(argv[1], strlen(argv[1]), &options, &model));
  if (model == NULL) return 1;
  test_same_tokens(model);
  edgellm_model_free(model);
  model = load(argv[1]);
  test_nonsense(model);
  test_small_models(argv[1], model);
  edgellm_model_free(model);
  test_options(argv[1]);
  printf(n_failures == 0 ? "ok\n" : "%d failures\n", n_failures);
  return n_failures != 0;
}
