/* The C interface to sessions and KV on disk; argv[1] is the demo. */
#define _POSIX_C_SOURCE 200809L

#include <unistd.h>

#include "c_api_check.h"
#include "c_api_engine.h"

enum { N_PROMPT = 150, N_MORE = 6, N_PATH = 64 };

static void fill_ids(int32_t* ids, int n) {
  for (int i = 0; i < n; ++i) ids[i] = 5 + i * 37 % 900;
}

static edgellm_session* fed(const edgellm_model* model, const edgellm_adapter* adapter,
                            const int32_t* ids, size_t n_ids) {
  edgellm_session* session = NULL;
  CHECK_OK(edgellm_session_create(model, 0, &session));
  CHECK_OK(edgellm_session_set_adapter(session, adapter));
  CHECK_OK(edgellm_session_append(session, ids, n_ids));
  run_all(session);
  return session;
}

static void check_same_logits(const edgellm_session* one, const edgellm_session* other) {
  static float logits[2][1 << 16];
  size_t n[2] = {0, 0};
  CHECK_OK(edgellm_session_logits(one, logits[0], 1 << 16, &n[0]));
  CHECK_OK(edgellm_session_logits(other, logits[1], 1 << 16, &n[1]));
  CHECK(n[0] > 100 && n[0] == n[1] && memcmp(logits[0], logits[1], n[0] * sizeof(float)) == 0);
}

/* Flips a bit in the middle of a file. */
static void damage(const char* path) {
  FILE* file = fopen(path, "r+b");
  CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
  const long middle = ftell(file) / 2;
  fseek(file, middle, SEEK_SET);
  const int byte = fgetc(file);
  fseek(file, middle, SEEK_SET);
  fputc(byte ^ 1, file);
  fclose(file);
}

static void test_a_saved_session_goes_on(edgellm_model* model, edgellm_model* later,
                                         const char* path) {
  edgellm_session *session = NULL, *restored = NULL;
  edgellm_session_state state = EDGELLM_SESSION_STATE_INIT;
  int32_t ids[N_PROMPT + N_MORE], kept[N_PROMPT];
  char note[8] = "";
  size_t n = 0;
  const size_t n_path = strlen(path);
  fill_ids(ids, N_PROMPT + N_MORE);
  session = fed(model, NULL, ids, N_PROMPT);
  CHECK_OK(edgellm_session_save(session, path, n_path, "a\0note", 6));
  CHECK_OK(edgellm_session_file_note(path, n_path, note, sizeof note, &n));
  CHECK(n == 6 && memcmp(note, "a\0note", 6) == 0);
  CHECK_ERROR(edgellm_session_file_note(path, n_path, note, 5, &n), BUFFER_TOO_SMALL);

  CHECK_OK(edgellm_session_create(later, 0, &restored));
  CHECK_OK(edgellm_session_restore(restored, path, n_path));
  CHECK_OK(edgellm_session_token_ids(restored, kept, N_PROMPT, &n));
  CHECK(n == N_PROMPT && memcmp(kept, ids, sizeof kept) == 0);
  check_same_logits(session, restored);
  CHECK_OK(edgellm_session_append(session, ids + N_PROMPT, N_MORE));
  CHECK_ERROR(edgellm_session_save(session, path, n_path, NULL, 0), INVALID_ARGUMENT);
  CHECK_OK(edgellm_session_append(restored, ids + N_PROMPT, N_MORE));
  run_all(session);
  run_all(restored);
  check_same_logits(session, restored);
  CHECK_ERROR(edgellm_session_restore(restored, path, n_path), INVALID_ARGUMENT);
  check_same_logits(session, restored);
  edgellm_session_free(restored);

  CHECK_OK(edgellm_session_create(later, N_PROMPT - 1, &restored));
  CHECK_ERROR(edgellm_session_restore(restored, path, n_path), CONTEXT_OVERFLOW);
  edgellm_session_free(restored);
  CHECK_OK(edgellm_session_create(later, 0, &restored));
  damage(path);
  CHECK_ERROR(edgellm_session_restore(restored, path, n_path), SESSION_HASH);
  CHECK_ERROR(edgellm_session_restore(restored, "/no/such", 8), FILE_NOT_FOUND);
  CHECK_OK(edgellm_session_get_state(restored, &state));
  CHECK(state.n_tokens == 0 && state.n_pending == 0);
  CHECK_OK(edgellm_session_append(restored, ids, N_PROMPT + N_MORE));
  run_all(restored);
  check_same_logits(session, restored);
  edgellm_session_free(restored);
  edgellm_session_free(session);
}

static void test_a_session_with_an_adapter(edgellm_model* model, edgellm_model* later,
                                           const char* model_path, const char* adapter_path,
                                           const char* path) {
  edgellm_adapter *adapter = NULL, *same = NULL;
  edgellm_session *plain = NULL, *restored = NULL;
  int32_t ids[N_PROMPT + N_MORE];
  size_t n = 0;
  static float logits[2][1 << 16];
  fill_ids(ids, N_PROMPT + N_MORE);
  CHECK(engine_write_adapter(model_path, adapter_path) == 0);
  CHECK_OK(edgellm_adapter_load(model, adapter_path, strlen(adapter_path), &adapter));
  CHECK_OK(edgellm_adapter_load(later, adapter_path, strlen(adapter_path), &same));
  edgellm_session* session = fed(model, adapter, ids, N_PROMPT);
  plain = fed(model, NULL, ids, N_PROMPT);
  CHECK_OK(edgellm_session_logits(session, logits[0], 1 << 16, &n));
  CHECK_OK(edgellm_session_logits(plain, logits[1], 1 << 16, &n));
  CHECK(memcmp(logits[0], logits[1], n * sizeof(float)) != 0);
  CHECK_OK(edgellm_session_save(session, path, strlen(path), NULL, 0));

  CHECK_OK(edgellm_session_create(later, 0, &restored));
  CHECK_ERROR(edgellm_session_restore(restored, path, strlen(path)), SESSION_MISMATCH);
  CHECK(strstr(edgellm_last_error(NULL), "another adapter") != NULL);
  CHECK_OK(edgellm_session_set_adapter(restored, same));
  CHECK_OK(edgellm_session_restore(restored, path, strlen(path)));
  CHECK_OK(edgellm_session_append(session, ids + N_PROMPT, N_MORE));
  CHECK_OK(edgellm_session_append(restored, ids + N_PROMPT, N_MORE));
  run_all(session);
  run_all(restored);
  check_same_logits(session, restored);
  edgellm_session_free(restored);

  CHECK_OK(edgellm_session_save(plain, path, strlen(path), NULL, 0));
  CHECK_OK(edgellm_session_create(later, 0, &restored));
  CHECK_OK(edgellm_session_set_adapter(restored, same));
  CHECK_ERROR(edgellm_session_restore(restored, path, strlen(path)), SESSION_MISMATCH);
  edgellm_session_free(restored);
  edgellm_session_free(plain);
  edgellm_session_free(session);
  edgellm_adapter_free(same);
  edgellm_adapter_free(adapter);
}

static edgellm_model* load_with(const char* path, const char* directory) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  options.verify = EDGELLM_VERIFY_ALWAYS;
  options.kv_cache_dir = directory;
  options.n_kv_cache_dir_bytes = strlen(directory);
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  options.kv_cache_disk_bytes = 1;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  options.kv_cache_dir = NULL;
  CHECK_ERROR(edgellm_model_load(path, strlen(path), &options, &model), INVALID_ARGUMENT);
  return model;
}

static void test_kv_comes_back_from_a_directory(edgellm_model* plain, const char* path,
                                                const char* directory) {
  edgellm_kv_figures figures = EDGELLM_KV_FIGURES_INIT;
  edgellm_session_stats stats = EDGELLM_SESSION_STATS_INIT;
  int32_t ids[N_PROMPT];
  fill_ids(ids, N_PROMPT);
  edgellm_model* model = load_with(path, directory);
  edgellm_session_free(fed(model, NULL, ids, N_PROMPT));
  CHECK_OK(edgellm_model_trim(model, UINT64_MAX, NULL));
  CHECK_OK(edgellm_model_get_kv_figures(model, &figures));
  CHECK(figures.used_bytes == 0 && figures.disk_bytes > 0 && figures.n_disk_failed_writes == 0);
  CHECK(figures.n_disk_written_tokens == N_PROMPT / 16 * 16);
  edgellm_model_free(model);

  model = load_with(path, directory);
  edgellm_session* session = fed(model, NULL, ids, N_PROMPT);
  CHECK_OK(edgellm_session_get_stats(session, &stats));
  CHECK(stats.n_reused_tokens == N_PROMPT / 16 * 16 &&
        stats.n_disk_tokens == stats.n_reused_tokens);
  CHECK_OK(edgellm_model_get_kv_figures(model, &figures));
  CHECK(figures.n_disk_read_tokens == stats.n_disk_tokens && figures.n_disk_damaged_files == 0);
  edgellm_session* computed = fed(plain, NULL, ids, N_PROMPT);
  check_same_logits(session, computed);
  edgellm_session_free(computed);
  edgellm_session_free(session);
  edgellm_model_free(model);
}

int main(int argc, char** argv) {
  char directory[] = "/tmp/edge_c_api_XXXXXX";
  char session[N_PATH], adapter[N_PATH], kv[N_PATH];
  if (argc != 2 || mkdtemp(directory) == NULL) {
    fprintf(stderr, "usage: test_c_api_disk MODEL\n");
    return 2;
  }
  snprintf(session, sizeof session, "%s/session", directory);
  snprintf(adapter, sizeof adapter, "%s/adapter", directory);
  snprintf(kv, sizeof kv, "%s/kv", directory);
  edgellm_model *model = load(argv[1]), *later = load(argv[1]);
  test_a_saved_session_goes_on(model, later, session);
  test_a_session_with_an_adapter(model, later, argv[1], adapter, session);
  test_kv_comes_back_from_a_directory(model, argv[1], kv);
  edgellm_model_free(later);
  edgellm_model_free(model);
  engine_remove_all(directory);
  printf(n_failures == 0 ? "ok\n" : "%d failures\n", n_failures);
  return n_failures != 0;
}
