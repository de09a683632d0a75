/* The C interface from C, on the demo model: argv[1] is its path. Plain C11 on purpose: what is
 * tested is also that the header is C. */
#include "edgellm/c_api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "c_api_check.h"
#include "c_api_engine.h"

enum { N_PROMPT_MAX = 64, N_NEW = 24 };
static const char kPrompt[] = "Once upon a time, there was a little girl named Lily. She";

static size_t encode_prompt(const edgellm_model* model, int32_t* ids) {
  edgellm_tokenizer* tokenizer = NULL;
  size_t n_ids = 0;
  CHECK_OK(edgellm_model_tokenizer(model, &tokenizer));
  CHECK_OK(edgellm_tokenizer_encode(tokenizer, kPrompt, strlen(kPrompt), EDGELLM_TEXT_BOS, ids,
                                    N_PROMPT_MAX, &n_ids));
  edgellm_tokenizer_free(tokenizer);
  CHECK(n_ids > 5);
  return n_ids;
}

static void test_library(void) {
  size_t n_bytes = 7;
  CHECK(edgellm_abi_version() == EDGELLM_ABI_VERSION);
  CHECK(edgellm_version()[0] != '\0');
  CHECK(strcmp(edgellm_last_error(&n_bytes), "") == 0 && n_bytes == 0);
  CHECK(strcmp(edgellm_status_name(EDGELLM_OK), "ok") == 0);
  CHECK(strcmp(edgellm_status_class(EDGELLM_OK), "") == 0);
  CHECK(strcmp(edgellm_status_name(EDGELLM_ERROR_LEAF_HASH), "leaf_hash") == 0);
  CHECK(strcmp(edgellm_status_class(EDGELLM_ERROR_LEAF_HASH), "IntegrityError") == 0);
  CHECK(strcmp(edgellm_status_name(123456), "unknown") == 0);
  CHECK(strcmp(edgellm_status_class(-1), "EdgeError") == 0);
}

/* Every call, with NULL for every pointer. */
static void test_nulls_without_handles(void) {
  CHECK_ERROR(edgellm_model_load(NULL, 0, NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_get_info(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_eos_ids(NULL, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_spec_json(NULL, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_metadata(NULL, NULL, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_blob(NULL, NULL, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_verified_fraction(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_tokenizer(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_close(NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_verify_file(NULL, 0, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_create(NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_n_vocab(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_encode(NULL, NULL, 0, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_decode(NULL, NULL, 0, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_token_text(NULL, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_is_special(NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_stream_decoder_create(NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_stream_decoder_push(NULL, 0), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_stream_decoder_flush(NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_stream_decoder_take(NULL, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_sanitize(NULL, 0, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_create(NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_get_state(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_token_ids(NULL, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_append(NULL, NULL, 0), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_run(NULL, 1, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_run_with_hidden(NULL, 1, NULL, 0, NULL, NULL, NULL),
              INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_run_with_logits(NULL, 1, NULL, 0, NULL, NULL, NULL),
              INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_rewind(NULL, 0), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_save(NULL, "x", 1, NULL, 0), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_restore(NULL, "x", 1), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_file_note("x", 1, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_logits(NULL, NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_sample(NULL, NULL, 0, NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_cancel(NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_get_stats(NULL, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_close(NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_machine_get_facts(NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_active_isa(NULL, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_isa_level(0, NULL, 0, NULL), INVALID_ARGUMENT);
  edgellm_model_free(NULL);
  edgellm_tokenizer_free(NULL);
  edgellm_stream_decoder_free(NULL);
  edgellm_session_free(NULL);
}

/* A good handle, and NULL for the rest. */
static void test_nulls_with_handles(edgellm_model* model) {
  edgellm_tokenizer* tokenizer = NULL;
  edgellm_session* session = NULL;
  size_t n = 0;
  int32_t is_done = 0;
  CHECK_OK(edgellm_model_tokenizer(model, &tokenizer));
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_ERROR(edgellm_model_get_info(model, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_eos_ids(model, NULL, 4, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_metadata(model, NULL, 3, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_encode(tokenizer, NULL, 5, 0, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_decode(tokenizer, NULL, 1, 0, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_decode(tokenizer, &is_done, SIZE_MAX, 0, NULL, 0, &n),
              INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_stream_decoder_create(tokenizer, 0, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_append(session, NULL, 1), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_run(session, 1, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_run_with_logits(session, 1, NULL, 0, &n, &n, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_sample(session, NULL, 0, NULL, NULL), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_append(session, NULL, 0));
  CHECK_OK(edgellm_session_run(session, 1, &is_done));
  CHECK(is_done == 1);
  edgellm_session_free(session);
  edgellm_tokenizer_free(tokenizer);
}

static void test_info(const edgellm_model* model, const char* path) {
  edgellm_model_info info = EDGELLM_MODEL_INFO_INIT;
  edgellm_verify_result verified = EDGELLM_VERIFY_RESULT_INIT;
  int32_t eos_ids[16];
  char text[8];
  size_t n = 0;
  uint64_t kv_bytes = 0;
  double fraction = 0;
  CHECK_OK(edgellm_model_get_info(model, &info));
  CHECK(info.n_vocab > 100 && info.n_ctx_train > 100 && info.has_tokenizer == 1);
  CHECK(info.n_threads == 2 && info.load_ms > 0 && info.file_bytes > 1000000);
  CHECK(strlen(info.root) == 64 && strcmp(info.backend, "cpu") == 0);
  CHECK_OK(edgellm_model_kv_bytes(model, 33, &kv_bytes));
  CHECK(kv_bytes == 48 * info.kv_bytes_per_token); /* whole pages */
  CHECK_ERROR(edgellm_model_kv_bytes(model, -1, &kv_bytes), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_kv_bytes(model, 33, NULL), INVALID_ARGUMENT);
  CHECK_OK(edgellm_model_eos_ids(model, eos_ids, 16, &n));
  CHECK((int32_t)n == info.n_eos_ids && n > 0 && eos_ids[0] >= 0);
  CHECK_OK(edgellm_model_spec_json(model, NULL, 0, &n));
  CHECK(n > 50);
  CHECK_ERROR(edgellm_model_spec_json(model, text, sizeof text, &n), BUFFER_TOO_SMALL);
  CHECK_OK(edgellm_model_metadata(model, "edgellm.root", 12, NULL, 0, &n));
  CHECK(n == 64);
  CHECK_ERROR(edgellm_model_metadata(model, "nothing", 7, NULL, 0, &n), JSON_MISSING_KEY);
  CHECK_ERROR(edgellm_model_blob(model, "nothing", 7, NULL, 0, &n), TENSOR_MISSING);
  CHECK_OK(edgellm_model_verified_fraction(model, &fraction));
  CHECK(fraction == 1);
  CHECK_OK(edgellm_verify_file(path, strlen(path), 0, &verified));
  CHECK(strcmp(verified.root, info.root) == 0 && verified.file_bytes == info.file_bytes);
}

static void test_load_errors(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  CHECK_ERROR(edgellm_model_load("/no/such.edge", 13, NULL, &model), FILE_NOT_FOUND);
  CHECK(strstr(edgellm_last_error(NULL), "/no/such.edge") != NULL);
  CHECK_ERROR(edgellm_model_load("", 0, NULL, &model), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_load("a\0b", 3, NULL, &model), INVALID_ARGUMENT);
  options.n_threads = -1;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.n_threads = 0;
  options.verify = 9;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.verify = EDGELLM_VERIFY_NEVER;
  options.max_memory_bytes = 4096;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), MEMORY_BUDGET);
  options.struct_size = 0;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  CHECK(model == NULL);
}

/* What a signature is of, checked elsewhere: this file or none. */
static void test_identity(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  char digits[80] = {0};
  size_t n = 0;
  CHECK_OK(edgellm_model_load(path, strlen(path), NULL, &model));
  CHECK_OK(edgellm_model_metadata(model, "edgellm.header_sha256", 21, digits, sizeof digits, &n));
  edgellm_model_free(model);
  model = NULL;
  options.verify = EDGELLM_VERIFY_ALWAYS;
  options.header_sha256 = digits;
  options.n_header_sha256_bytes = 64;
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  edgellm_model_free(model);
  model = NULL;
  options.n_header_sha256_bytes = 0;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.n_header_sha256_bytes = 64;
  digits[5] = digits[5] == '0' ? '1' : '0';
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), SIGNATURE_DIGEST);
  CHECK(model == NULL);
}

/* Structs of a caller that knows more fields than the library. */
static void test_longer_structs(const char* path) {
  struct {
    edgellm_load_options known;
    uint64_t later;
  } options = {EDGELLM_LOAD_OPTIONS_INIT, 0};
  struct {
    edgellm_machine_facts known;
    uint64_t later;
  } facts = {EDGELLM_MACHINE_FACTS_INIT, 77};
  edgellm_model* model = NULL;
  options.known.struct_size = sizeof options;
  CHECK_OK(edgellm_model_load(path, strlen(path), &options.known, &model));
  edgellm_model_free(model);
  model = NULL;
  options.later = 1;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options.known, &model), INVALID_ARGUMENT);
  facts.known.struct_size = sizeof facts;
  CHECK_OK(edgellm_machine_get_facts(&facts.known));
  CHECK(facts.later == 0 && facts.known.struct_size == sizeof facts);
  CHECK(facts.known.default_n_threads >= 1 && facts.known.total_bytes > 0);
}

static void test_text(const edgellm_model* model) {
  edgellm_tokenizer* tokenizer = NULL;
  edgellm_stream_decoder* decoder = NULL;
  int32_t ids[N_PROMPT_MAX], n_vocab = 0, is_special = -1;
  char text[256], piece[8];
  size_t n_ids = encode_prompt(model, ids), n = 0, n_text = 0;
  CHECK_OK(edgellm_model_tokenizer(model, &tokenizer));
  CHECK_OK(edgellm_tokenizer_n_vocab(tokenizer, &n_vocab));
  CHECK(n_vocab > 100);
  CHECK_ERROR(edgellm_tokenizer_encode(tokenizer, "ab cd", 5, 0, ids + 60, 0, &n),
              BUFFER_TOO_SMALL);
  CHECK_ERROR(edgellm_tokenizer_encode(tokenizer, "a", 1, 8, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_tokenizer_encode(tokenizer, "\xff", 1, 0, NULL, 0, &n), INVALID_UTF8);
  CHECK_OK(edgellm_tokenizer_decode(tokenizer, ids, n_ids, 0, text, sizeof text, &n_text));
  CHECK(n_text == strlen(kPrompt) && memcmp(text, kPrompt, n_text) == 0);
  CHECK_ERROR(edgellm_tokenizer_token_text(tokenizer, n_vocab, text, 1, &n), TOKEN_OUT_OF_RANGE);
  CHECK_ERROR(edgellm_tokenizer_is_special(tokenizer, -1, &is_special), TOKEN_OUT_OF_RANGE);
  CHECK_OK(edgellm_tokenizer_is_special(tokenizer, ids[n_ids - 1], &is_special));
  CHECK(is_special == 0);

  CHECK_OK(edgellm_stream_decoder_create(tokenizer, 0, &decoder));
  edgellm_tokenizer_free(tokenizer);
  n_text = 0;
  for (size_t i = 0; i < n_ids; ++i) {
    CHECK_OK(edgellm_stream_decoder_push(decoder, ids[i]));
    if (edgellm_stream_decoder_take(decoder, piece, 1, &n) == EDGELLM_ERROR_BUFFER_TOO_SMALL) {
      CHECK(n > 1); /* and the text waits for a larger buffer */
      CHECK_OK(edgellm_stream_decoder_take(decoder, text + n_text, sizeof text - n_text, &n));
    } else {
      memcpy(text + n_text, piece, n);
    }
    n_text += n;
  }
  CHECK_OK(edgellm_stream_decoder_flush(decoder));
  CHECK_OK(edgellm_stream_decoder_take(decoder, text + n_text, sizeof text - n_text, &n));
  n_text += n;
  CHECK(n_text == strlen(kPrompt) && memcmp(text, kPrompt, n_text) == 0);
  CHECK_ERROR(edgellm_stream_decoder_push(decoder, -1), TOKEN_OUT_OF_RANGE);
  edgellm_stream_decoder_free(decoder);
  CHECK_OK(edgellm_sanitize("a\x1b[m", 4, text, sizeof text, &n));
  CHECK(n == 6 && memcmp(text, "a\xe2\x90\x9b[m", 6) == 0);
}

static void test_greedy_ids_are_those_of_the_engine(edgellm_model* model, const char* path) {
  edgellm_session* session = NULL;
  edgellm_session_state state = EDGELLM_SESSION_STATE_INIT;
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  int32_t prompt[N_PROMPT_MAX], ids[N_NEW], expected[N_NEW], all[N_PROMPT_MAX + N_NEW];
  size_t n_prompt = encode_prompt(model, prompt), n = 0;
  double logprob = 1;
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_OK(edgellm_session_append(session, prompt, n_prompt));
  for (int i = 0; i < N_NEW; ++i) {
    run_all(session);
    CHECK_OK(edgellm_session_sample(session, NULL, -1, &ids[i], &logprob));
    CHECK_OK(edgellm_session_append(session, &ids[i], 1));
  }
  CHECK(logprob <= 0);
  CHECK(engine_greedy_ids(path, prompt, n_prompt, expected, N_NEW) == 0);
  CHECK(memcmp(ids, expected, sizeof ids) == 0);
  CHECK_OK(edgellm_session_get_state(session, &state));
  CHECK(state.n_tokens == (int32_t)n_prompt + N_NEW - 1 && state.n_pending == 1);
  CHECK_OK(edgellm_session_get_stats(session, &stats));
  CHECK(stats.n_prefill_tokens == (int64_t)n_prompt && stats.n_decode_tokens == N_NEW - 1);
  CHECK(stats.n_recomputed_tokens == 0 && stats.kv_bytes > 0);

  /* Back to the prompt: the same first token again. */
  CHECK_OK(edgellm_session_rewind(session, (int32_t)n_prompt - 1));
  CHECK_OK(edgellm_session_append(session, &prompt[n_prompt - 1], 1));
  run_all(session);
  CHECK_OK(edgellm_session_sample(session, NULL, -1, &ids[1], NULL));
  CHECK(ids[1] == expected[0]);
  CHECK_OK(edgellm_session_token_ids(session, all, N_PROMPT_MAX + N_NEW, &n));
  CHECK(n == n_prompt && memcmp(all, prompt, n * sizeof prompt[0]) == 0);
  edgellm_session_free(session);
}

static void test_logits(edgellm_model* model) {
  edgellm_session* session = NULL;
  edgellm_session_state state = EDGELLM_SESSION_STATE_INIT;
  int32_t prompt[N_PROMPT_MAX], is_done = 0;
  size_t n_prompt = encode_prompt(model, prompt), n = 0, n_floats = 0, n_last = 0;
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_ERROR(edgellm_session_logits(session, NULL, 0, &n), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_append(session, prompt, n_prompt));
  CHECK_ERROR(edgellm_session_run_with_logits(session, 1e9, NULL, 0, &n, &n_floats, &is_done),
              BUFFER_TOO_SMALL);
  CHECK_OK(edgellm_session_get_state(session, &state));
  CHECK(state.n_pending == (int32_t)n_prompt && n == n_prompt * (size_t)state.n_vocab);
  float *all = malloc(n * sizeof *all), *last = malloc(n * sizeof *last);
  CHECK_OK(edgellm_session_run_with_logits(session, 1e9, all, n, &n, &n_floats, &is_done));
  CHECK(is_done == 1 && n_floats == n);
  CHECK_OK(edgellm_session_logits(session, last, n, &n_last));
  CHECK(n_last == (size_t)state.n_vocab);
  CHECK(memcmp(last, all + n - n_last, n_last * sizeof *last) == 0);
  free(all);
  free(last);
  edgellm_session_free(session);
}

static void test_hidden_states(edgellm_model* model) {
  edgellm_session* session = NULL;
  int32_t prompt[N_PROMPT_MAX], is_done = 0;
  size_t n_prompt = encode_prompt(model, prompt), n = 0, n_floats = 0, n_last = 0;
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_OK(edgellm_session_append(session, prompt, n_prompt));
  CHECK_ERROR(edgellm_session_run_with_hidden(session, 1e9, NULL, 0, &n, &n_floats, &is_done),
              BUFFER_TOO_SMALL);
  CHECK(n > n_prompt && n % n_prompt == 0);
  float* all = calloc(n, sizeof *all);
  CHECK_OK(edgellm_session_run_with_hidden(session, 1e9, all, n, &n, &n_floats, &is_done));
  CHECK(is_done == 1 && n_floats == n);
  CHECK(all[0] != 0 && all[n - 1] != 0);
  CHECK_ERROR(edgellm_session_logits(session, NULL, 0, &n_last), INVALID_ARGUMENT);
  free(all);
  edgellm_session_free(session);
}

static void test_session_errors(edgellm_model* model) {
  edgellm_session* session = NULL;
  edgellm_sampler_params params = EDGELLM_SAMPLER_PARAMS_INIT;
  int32_t ids[N_PROMPT_MAX], is_done = 0, id = 0;
  size_t n_ids = encode_prompt(model, ids);
  CHECK_ERROR(edgellm_session_create(model, -1, &session), INVALID_ARGUMENT);
  CHECK(session == NULL);
  CHECK_OK(edgellm_session_create(model, 8, &session));
  CHECK_ERROR(edgellm_session_append(session, ids, n_ids), CONTEXT_OVERFLOW);
  id = -1;
  CHECK_ERROR(edgellm_session_append(session, &id, 1), TOKEN_OUT_OF_RANGE);
  CHECK_OK(edgellm_session_append(session, ids, 3));
  CHECK_ERROR(edgellm_session_run(session, -1, &is_done), INVALID_ARGUMENT);
  run_all(session);
  params.top_p = 2;
  CHECK_ERROR(edgellm_session_sample(session, &params, -1, &id, NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_rewind(session, -1), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_session_rewind(session, 4), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_close(session));
  CHECK_OK(edgellm_session_close(session));
  CHECK_ERROR(edgellm_session_run(session, 1, &is_done), INVALID_ARGUMENT);
  edgellm_session_free(session);
}

typedef struct {
  edgellm_session* session;
  edgellm_status status;
  int has_own_message;
} Worker;

/* Runs the same tokens again and again until it fails. */
static void* run_until_cancelled(void* argument) {
  Worker* worker = argument;
  int32_t ids[64] = {0}, is_done = 0;
  worker->has_own_message = edgellm_last_error(NULL)[0] == '\0';
  for (int i = 0; i < 64; ++i) ids[i] = i + 3;
  worker->status = EDGELLM_OK;
  for (int round = 0; round < 100000 && worker->status == EDGELLM_OK; ++round) {
    edgellm_session_rewind(worker->session, 0);
    edgellm_session_append(worker->session, ids, 64);
    worker->status = edgellm_session_run(worker->session, 1e9, &is_done);
  }
  worker->has_own_message &= edgellm_last_error(NULL)[0] != '\0';
  return NULL;
}

static void test_cancel_from_another_thread(edgellm_model* model) {
  Worker worker = {NULL, EDGELLM_OK, 0};
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  int32_t is_done = 0;
  pthread_t thread;
  CHECK_OK(edgellm_session_create(model, 0, &worker.session));
  CHECK(pthread_create(&thread, NULL, run_until_cancelled, &worker) == 0);
  while (stats.n_prefill_tokens < 64) {
    if (edgellm_session_get_stats(worker.session, &stats) != EDGELLM_OK) break;
  }
  CHECK_OK(edgellm_session_cancel(worker.session));
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(worker.status == EDGELLM_ERROR_CANCELLED && worker.has_own_message);
  CHECK_OK(edgellm_session_run(worker.session, 1e9, &is_done)); /* cancelled once */
  edgellm_session_free(worker.session);
}

static void test_order_of_freeing(const char* path) {
  edgellm_model* model = load(path);
  edgellm_session* session = NULL;
  int32_t ids[N_PROMPT_MAX], id = 0;
  size_t n_ids = encode_prompt(model, ids);
  CHECK_OK(edgellm_session_create(model, 0, &session));
  edgellm_model_free(model);
  CHECK_OK(edgellm_session_append(session, ids, n_ids));
  run_all(session);
  CHECK_OK(edgellm_session_sample(session, NULL, -1, &id, NULL));
  edgellm_session_free(session);

  model = load(path);
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_OK(edgellm_model_close(model));
  CHECK_OK(edgellm_model_close(model));
  CHECK_ERROR(edgellm_session_append(session, ids, n_ids), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_model_spec_json(model, NULL, 0, &n_ids), INVALID_ARGUMENT);
  edgellm_session_free(session);
  edgellm_model_free(model);
}

static void test_machine(void) {
  char active[32], best[32];
  size_t n_active = 0, n_best = 0;
  CHECK_OK(edgellm_active_isa(active, sizeof active, &n_active));
  CHECK_OK(edgellm_isa_level(0, best, sizeof best, &n_best));
  CHECK(n_active > 2 && n_best > 2);
  CHECK_ERROR(edgellm_isa_level(99, best, sizeof best, &n_best), INVALID_ARGUMENT);
}

/* What is no adapter is refused; the bits of adapters are the golden tests' matter. */
static void test_adapters(const edgellm_model* model, const char* path) {
  edgellm_session* session = NULL;
  edgellm_adapter* adapter = NULL;
  CHECK_ERROR(edgellm_adapter_load(NULL, path, strlen(path), &adapter), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_adapter_load(model, path, strlen(path), NULL), INVALID_ARGUMENT);
  CHECK_ERROR(edgellm_adapter_load(model, path, strlen(path), &adapter), SPEC_INVALID);
  CHECK_ERROR(edgellm_session_set_adapter(NULL, NULL), INVALID_ARGUMENT);
  CHECK(adapter == NULL);
  CHECK_OK(edgellm_session_create(model, 8, &session));
  CHECK_OK(edgellm_session_set_adapter(session, NULL));
  edgellm_session_free(session);
  edgellm_adapter_free(NULL);
}

static void test_backends(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  options.backend = EDGELLM_BACKEND_CPU;
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  edgellm_model_free(model);
  model = NULL;
  options.backend = EDGELLM_BACKEND_CUDA; /* whose library is not beside this program */
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), DEVICE_UNAVAILABLE);
  CHECK(strstr(edgellm_last_error(NULL), "CUDA") != NULL && model == NULL);
  options.backend = EDGELLM_BACKEND_VULKAN + 1;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: test_c_api MODEL\n");
    return 2;
  }
  test_library();
  test_nulls_without_handles();
  edgellm_model* model = load(argv[1]);
  test_nulls_with_handles(model);
  test_info(model, argv[1]);
  test_load_errors(argv[1]);
  test_identity(argv[1]);
  test_longer_structs(argv[1]);
  test_backends(argv[1]);
  test_text(model);
  test_greedy_ids_are_those_of_the_engine(model, argv[1]);
  test_logits(model);
  test_hidden_states(model);
  test_session_errors(model);
  test_cancel_from_another_thread(model);
  test_adapters(model, argv[1]);
  edgellm_model_free(model);
  test_order_of_freeing(argv[1]);
  test_machine();
  printf(n_failures == 0 ? "ok\n" : "%d failures\n", n_failures);
  return n_failures != 0;
}
