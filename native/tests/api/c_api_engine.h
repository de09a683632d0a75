/* What the C tests need and C++ has: the engine's answer to compare with, files. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Greedy continuation on one thread; 0 on success. */
int engine_greedy_ids(const char* path, const int32_t* prompt, size_t n_prompt, int32_t* ids,
                      size_t n_ids);

/* An adapter of the model at `path` that changes what its first layer asks for, to `adapter_path`;
 * 0 on success. */
int engine_write_adapter(const char* path, const char* adapter_path);

/* A directory and all in it. */
void engine_remove_all(const char* path);

#ifdef __cplusplus
}
#endif
