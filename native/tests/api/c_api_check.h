/* What the tests of the C interface share. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgellm/c_api.h"

static int n_failures = 0;

static void check_at(int is_ok, int line, const char* what) {
  if (is_ok) return;
  ++n_failures;
  fprintf(stderr, "line %d: %s (last error: %s)\n", line, what, edgellm_last_error(NULL));
}

#define CHECK(condition) check_at(!!(condition), __LINE__, #condition)
#define CHECK_OK(call) CHECK((call) == EDGELLM_OK)
#define CHECK_ERROR(call, name) check_error((call), EDGELLM_ERROR_##name, __LINE__, #call)

static void check_error(edgellm_status status, edgellm_status expected, int line,
                        const char* what) {
  size_t n_bytes = 0;
  const char* message = edgellm_last_error(&n_bytes);
  check_at(status == expected, line, what);
  check_at(n_bytes > 5 && strlen(message) == n_bytes, line, "a message comes with an error");
}

static edgellm_model* load(const char* path) {
  edgellm_load_options options = EDGELLM_LOAD_OPTIONS_INIT;
  edgellm_model* model = NULL;
  options.n_threads = 2;
  options.verify = EDGELLM_VERIFY_ALWAYS;
  CHECK_OK(edgellm_model_load(path, strlen(path), &options, &model));
  if (model == NULL) exit(1);
  return model;
}

static void run_all(edgellm_session* session) {
  int32_t is_done = 0;
  edgellm_status status = EDGELLM_OK;
  while (status == EDGELLM_OK && !is_done) status = edgellm_session_run(session, 50, &is_done);
  CHECK_OK(status);
}
