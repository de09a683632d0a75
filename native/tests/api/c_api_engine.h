/* The C++ engine's answer, for the C test to compare with. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Greedy continuation on one thread; 0 on success. */
int engine_greedy_ids(const char* path, const int32_t* prompt, size_t n_prompt, int32_t* ids,
                      size_t n_ids);

#ifdef __cplusplus
}
#endif
