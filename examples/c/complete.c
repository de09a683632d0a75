/* complete MODEL [TEXT] [N_TOKENS]: continues a text, greedily, through the C interface. */
#include <edgellm/c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  edgellm_model *model;
  edgellm_tokenizer *tokenizer;
  edgellm_stream_decoder *decoder;
  edgellm_session *session;
} Engine;

/* Says what went wrong and where; true if the call succeeded. */
static int ok(edgellm_status status, const char *what) {
  if (status == EDGELLM_OK) return 1;
  fprintf(stderr, "%s: %s: %s\n", what, edgellm_status_name(status), edgellm_last_error(NULL));
  return 0;
}

static int open_engine(const char *path, Engine *engine) {
  return ok(edgellm_model_load(path, strlen(path), NULL, &engine->model), "load") &&
         ok(edgellm_model_tokenizer(engine->model, &engine->tokenizer), "tokenizer") &&
         ok(edgellm_stream_decoder_create(engine->tokenizer, 0, &engine->decoder), "decoder") &&
         ok(edgellm_session_create(engine->model, 0, &engine->session), "session");
}

static int append_text(const Engine *engine, const char *text) {
  size_t n_ids = 0, n_written = 0;
  int is_ok = ok(edgellm_tokenizer_encode(engine->tokenizer, text, strlen(text), EDGELLM_TEXT_BOS,
                                          NULL, 0, &n_ids),
                 "encode");
  int32_t *ids = is_ok ? malloc((n_ids + 1) * sizeof *ids) : NULL;
  is_ok = ids != NULL &&
          ok(edgellm_tokenizer_encode(engine->tokenizer, text, strlen(text), EDGELLM_TEXT_BOS, ids,
                                      n_ids, &n_written),
             "encode") &&
          ok(edgellm_session_append(engine->session, ids, n_written), "append");
  free(ids);
  return is_ok;
}

/* Prints what the decoder has, made safe for a terminal. */
static int print_text(const Engine *engine) {
  char piece[512], safe[4 * sizeof piece];
  size_t n_piece = 0, n_safe = 0;
  if (!ok(edgellm_stream_decoder_take(engine->decoder, piece, sizeof piece, &n_piece), "take") ||
      !ok(edgellm_sanitize(piece, n_piece, safe, sizeof safe, &n_safe), "sanitize")) {
    return 0;
  }
  fwrite(safe, 1, n_safe, stdout);
  fflush(stdout);
  return 1;
}

/* 1: goes on, 0: the text has ended, -1: an error was printed. */
static int next_token(const Engine *engine, const int32_t *eos_ids, size_t n_eos_ids) {
  edgellm_session_state state = EDGELLM_SESSION_STATE_INIT;
  int32_t is_done = 0, id = 0;
  while (!is_done) {
    if (!ok(edgellm_session_run(engine->session, 80, &is_done), "run")) return -1;
  }
  if (!ok(edgellm_session_sample(engine->session, NULL, -1, &id, NULL), "sample")) return -1;
  for (size_t i = 0; i < n_eos_ids; ++i) {
    if (eos_ids[i] == id) return 0;
  }
  if (!ok(edgellm_stream_decoder_push(engine->decoder, id), "push") || !print_text(engine)) {
    return -1;
  }
  if (!ok(edgellm_session_get_state(engine->session, &state), "state")) return -1;
  if (state.n_tokens == state.n_ctx) return 0;
  return ok(edgellm_session_append(engine->session, &id, 1), "append") ? 1 : -1;
}

static int complete(const Engine *engine, const char *text, long n_tokens) {
  int32_t eos_ids[64];
  size_t n_eos_ids = 0;
  int state = 1;
  if (!ok(edgellm_model_eos_ids(engine->model, eos_ids, 64, &n_eos_ids), "eos_ids") ||
      !append_text(engine, text)) {
    return 1;
  }
  for (long i = 0; i < n_tokens && state == 1; ++i) state = next_token(engine, eos_ids, n_eos_ids);
  if (state < 0 || !ok(edgellm_stream_decoder_flush(engine->decoder), "flush")) return 1;
  if (!print_text(engine)) return 1;
  putchar('\n');
  return 0;
}

int main(int argc, char **argv) {
  Engine engine = {NULL, NULL, NULL, NULL};
  char *end = NULL;
  const long n_tokens = argc > 3 ? strtol(argv[3], &end, 10) : 64;
  if (argc < 2 || argc > 4 || n_tokens < 1 || (end != NULL && *end != '\0')) {
    fprintf(stderr, "usage: complete MODEL [TEXT] [N_TOKENS]\n");
    return 2;
  }
  const int failed = !open_engine(argv[1], &engine) ||
                     complete(&engine, argc > 2 ? argv[2] : "Once upon a time", n_tokens);
  edgellm_session_free(engine.session);
  edgellm_stream_decoder_free(engine.decoder);
  edgellm_tokenizer_free(engine.tokenizer);
  edgellm_model_free(engine.model);
  return failed;
}
