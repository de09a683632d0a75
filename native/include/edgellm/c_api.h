/* The C interface of the edgellm runtime, for hosts in C, Swift, Kotlin, Rust and others: a model
 * file in, tokens out. docs/C_API.md explains it; examples/c/complete.c uses it.
 *
 * Every call that can fail returns a status: EDGELLM_OK (0) or a number of c_codes.h, with a
 * message in edgellm_last_error(). On failure nothing was written to an out parameter but a
 * documented needed size. No call throws, prints, aborts or calls back.
 *
 * Text is UTF-8 as pointer and length, never ended by NUL unless said; (NULL, 0) is the empty text.
 * Buffers belong to the caller: *n_needed (never NULL) receives the size of the whole result; if
 * `capacity` is less, the status is EDGELLM_ERROR_BUFFER_TOO_SMALL and the buffer is untouched.
 * (NULL, 0) as buffer asks for the size only.
 *
 * Structs begin with struct_size, set by the EDGELLM_..._INIT macros: a library that knows more
 * fields uses their defaults, one that knows fewer refuses those that are not zero.
 *
 * Handles may be used by several threads at once, except that nobody may use a handle while it is
 * freed. A handle keeps what it needs alive: free them in any order; NULL is ignored. */
#ifndef EDGELLM_C_API_H
#define EDGELLM_C_API_H

#include <stddef.h>
#include <stdint.h>

#include "edgellm/c_codes.h"

#if defined(EDGELLM_STATIC)
#define EDGELLM_API
#elif defined(_WIN32)
#if defined(EDGELLM_BUILDING)
#define EDGELLM_API __declspec(dllexport)
#else
#define EDGELLM_API __declspec(dllimport)
#endif
#else
#define EDGELLM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Goes up when a program built against an older header would break; new functions, fields and
 * statuses do not raise it. Compare with edgellm_abi_version() where the library is found late. */
#define EDGELLM_ABI_VERSION 1

typedef int32_t edgellm_status;

typedef struct edgellm_model edgellm_model;
typedef struct edgellm_tokenizer edgellm_tokenizer;
typedef struct edgellm_stream_decoder edgellm_stream_decoder;
typedef struct edgellm_session edgellm_session;
typedef struct edgellm_adapter edgellm_adapter;

/* --- The library and its errors --- */

EDGELLM_API uint32_t edgellm_abi_version(void);
EDGELLM_API const char* edgellm_version(void); /* ends with NUL, static */
/* The stable name of a status ("leaf_hash", "ok") and its class of error ("IntegrityError", "");
 * "unknown" and "EdgeError" for a number this library does not have. End with NUL, static. */
EDGELLM_API const char* edgellm_status_name(edgellm_status status);
EDGELLM_API const char* edgellm_status_class(edgellm_status status);
/* What went wrong in the last call of this thread that failed: what, where and what to do, safe to
 * print. Ends with NUL; n_bytes may be NULL. Valid until the next failing call of this thread. */
EDGELLM_API const char* edgellm_last_error(size_t* n_bytes);

/* --- Models --- */

enum {
  EDGELLM_VERIFY_ONCE = 0, /* hash in the background; what it finds fails the next run */
  EDGELLM_VERIFY_ALWAYS = 1,
  EDGELLM_VERIFY_NEVER = 2
};

/* How keys and values are kept, docs/KV.md. */
enum {
  EDGELLM_KV_DEFAULT = 0, /* K8V8 */
  EDGELLM_KV_F16 = 1,
  EDGELLM_KV_K8V8 = 2, /* 8 bits, half the bytes */
  EDGELLM_KV_K8V4 = 3, /* values 4 bits, the first 32 tokens F16 */
  EDGELLM_KV_K6V4 = 4  /* keys 6 bits as well */
};

/* Whether sessions guess tokens and verify several in one step (docs/SPECULATION.md). */
enum {
  EDGELLM_SPECULATE_DEFAULT = 0,
  EDGELLM_SPECULATE_OFF = 1,
  EDGELLM_SPECULATE_AUTO = 2,  /* the default: where there is memory to spare */
  EDGELLM_SPECULATE_ON = 3,    /* or "memory_budget" */
  EDGELLM_SPECULATE_ALWAYS = 4 /* as ON, and as if a row more took no time: for tests */
};

/* Where the model computes, docs/backends.md; "device_unavailable" where there is no such device.
 */
enum {
  EDGELLM_BACKEND_DEFAULT = 0, /* CPU */
  EDGELLM_BACKEND_CPU = 1,
  EDGELLM_BACKEND_CUDA = 2,
  EDGELLM_BACKEND_METAL = 3,
  EDGELLM_BACKEND_NPU = 4,      /* graphs, which edgellm_load_options.npu names: docs/NPU.md */
  EDGELLM_BACKEND_CUDA_FP8 = 5, /* many rows as 8-bit floats: not the CPU's answers */
  EDGELLM_BACKEND_VULKAN = 6
};

/* UTF-8. */
typedef struct edgellm_setting {
  const char* name;
  size_t n_name_bytes;
  const char* value;
  size_t n_value_bytes;
} edgellm_setting;

typedef struct edgellm_load_options {
  size_t struct_size;
  int32_t n_threads;         /* 0: the physical cores this process may use */
  int32_t verify;            /* EDGELLM_VERIFY_... */
  uint64_t max_memory_bytes; /* file + scratch + sessions; 0: what the machine has available */
  int32_t n_ctx;             /* check the memory for a session of this size now; 0: one KV page */
  int32_t kv_format;         /* EDGELLM_KV_... */
  double latency_budget_ms;  /* of a step that reads a prompt while other sessions decode; 0: twice
                                what one without a prompt takes */
  /* KV of ended texts that is kept for those that begin alike; 0: an eighth of the memory for KV;
   * EDGELLM_NO_PREFIX_CACHE: none */
  uint64_t prefix_cache_bytes;
  /* UTF-8: a directory for KV of texts that leave memory, for this user alone, and the bytes that
   * its files may take, 0: 1 GiB. No directory: none (docs/SESSIONS.md). */
  const char* kv_cache_dir;
  size_t n_kv_cache_dir_bytes;
  uint64_t kv_cache_disk_bytes;
  int64_t speculate; /* EDGELLM_SPECULATE_... */
  /* What guesses besides for sessions that speculate: a small model with the same tokens, or
   * "draft_mismatch"; NULL: none. It stays open while this model needs it, and may be freed. */
  const edgellm_model* draft_model;
  int64_t draft_layers; /* guess by the first so many layers of the model itself; 0: no */
  int64_t backend;      /* EDGELLM_BACKEND_... */
  /* 64 hex digits that edgellm.header_sha256 of the file must be, or "signature_digest", before a
   * weight is read; NULL: any. With EDGELLM_VERIFY_ALWAYS they stand for every byte of the file:
   * check a signature of them first (docs/C_API.md). */
  const char* header_sha256;
  size_t n_header_sha256_bytes;
  /* Of EDGELLM_BACKEND_NPU, whose KV is F16: "bundle", the folder of the graphs, "generation" where
   * there are several, "library", onnxruntime's, "provider", "provider_library", "provider.NAME".
   * Sessions are as long as the graphs, or n_ctx: the CPU goes on behind them. */
  const edgellm_setting* npu;
  size_t n_npu;
} edgellm_load_options;
/* Every EDGELLM_..._DEFAULT is 0, and so is EDGELLM_VERIFY_ONCE. */
#define EDGELLM_LOAD_OPTIONS_INIT \
  {sizeof(edgellm_load_options), 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, NULL, 0, 0, NULL, 0, NULL, 0}
#define EDGELLM_NO_PREFIX_CACHE UINT64_MAX

typedef struct edgellm_model_info {
  size_t struct_size;
  int32_t n_vocab;
  int32_t n_ctx_train;
  int32_t bos_id; /* -1: none */
  int32_t n_eos_ids;
  int32_t n_threads;
  int32_t has_tokenizer;       /* 0 or 1 */
  uint64_t kv_bytes_per_token; /* until it leaves a layer's window */
  uint64_t scratch_bytes;
  uint64_t file_bytes;
  double load_ms;
  char root[72];          /* 64 hex digits and NUL: the identity of the model */
  char backend[16];       /* "cpu", "cuda", "cuda-fp8", "metal", "vulkan" or "npu", and NUL */
  char kv_format[16];     /* "F16", "K8V8", ... and NUL */
  uint64_t session_bytes; /* that a session reserves besides its KV, for logits */
  int64_t n_graph_tokens; /* that graphs hold, where the CPU computes those behind them; else 0 */
} edgellm_model_info;
#define EDGELLM_MODEL_INFO_INIT \
  {sizeof(edgellm_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, {0}, 0, 0}

/* KV pages of a model in bytes, and what became of those of earlier texts. */
typedef struct edgellm_kv_figures {
  size_t struct_size;
  uint64_t budget_bytes;
  uint64_t reserved_bytes; /* promised to sessions, or taken by adapters, of which */
  uint64_t session_bytes;  /* the logits of open sessions */
  uint64_t kept_bytes;     /* in pages that texts share, of which */
  uint64_t idle_bytes;     /* no session holds */
  uint64_t used_bytes;     /* in all pages, each counted once */
  int64_t n_reused_tokens; /* that were found so far */
  int64_t n_evicted_tokens;
  uint64_t disk_bytes; /* of the files in kv_cache_dir, as far as known; the rest by this model */
  int64_t n_disk_written_tokens;
  int64_t n_disk_read_tokens;
  int64_t n_disk_damaged_files; /* found, and removed */
  int64_t n_disk_failed_writes;
} edgellm_kv_figures;
#define EDGELLM_KV_FIGURES_INIT {sizeof(edgellm_kv_figures), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* options may be NULL: the defaults. The path is UTF-8 and holds no NUL. */
EDGELLM_API edgellm_status edgellm_model_load(const char* path, size_t n_path_bytes,
                                              const edgellm_load_options* options,
                                              edgellm_model** model);
EDGELLM_API edgellm_status edgellm_model_get_info(const edgellm_model* model,
                                                  edgellm_model_info* info);
/* The KV that a session of n_ctx tokens (0: the most) reserves, the most that it ever holds. */
EDGELLM_API edgellm_status edgellm_model_kv_bytes(const edgellm_model* model, int32_t n_ctx,
                                                  uint64_t* kv_bytes);
EDGELLM_API edgellm_status edgellm_model_get_kv_figures(const edgellm_model* model,
                                                        edgellm_kv_figures* figures);
/* Gives back n_bytes of KV that no session holds, least recently used first, or all there are
 * (UINT64_MAX); to kv_cache_dir if there is one. *n_freed (may be NULL): how many it were. */
EDGELLM_API edgellm_status edgellm_model_trim(edgellm_model* model, uint64_t n_bytes,
                                              uint64_t* n_freed);
EDGELLM_API edgellm_status edgellm_model_eos_ids(const edgellm_model* model, int32_t* ids,
                                                 size_t capacity, size_t* n_needed);
/* The architecture as JSON. */
EDGELLM_API edgellm_status edgellm_model_spec_json(const edgellm_model* model, char* buffer,
                                                   size_t capacity, size_t* n_needed);
/* A value of the file's metadata ("edgellm.source"); "json_missing_key" if there is none. */
EDGELLM_API edgellm_status edgellm_model_metadata(const edgellm_model* model, const char* key,
                                                  size_t n_key_bytes, char* buffer, size_t capacity,
                                                  size_t* n_needed);
/* A blob of the file ("chat_template"); "tensor_missing" if there is none. */
EDGELLM_API edgellm_status edgellm_model_blob(const edgellm_model* model, const char* name,
                                              size_t n_name_bytes, void* buffer, size_t capacity,
                                              size_t* n_needed);
EDGELLM_API edgellm_status edgellm_model_verified_fraction(const edgellm_model* model,
                                                           double* fraction);
/* "tokenizer_unsupported" if the file has none. */
EDGELLM_API edgellm_status edgellm_model_tokenizer(const edgellm_model* model,
                                                   edgellm_tokenizer** tokenizer);
/* Gives the memory back now: a run in another thread fails with "cancelled", later calls on the
 * model and its sessions with "invalid_argument". Tokenizers stay. Idempotent. */
EDGELLM_API edgellm_status edgellm_model_close(edgellm_model* model);
EDGELLM_API void edgellm_model_free(edgellm_model* model);

typedef struct edgellm_verify_result {
  size_t struct_size;
  uint64_t file_bytes;
  uint64_t n_leaves; /* of 1 MiB */
  double verify_ms;
  char root[72]; /* 64 hex digits and NUL */
} edgellm_verify_result;
#define EDGELLM_VERIFY_RESULT_INIT {sizeof(edgellm_verify_result), 0, 0, 0, {0}}

/* Hashes every byte of a file; fails for the first that is wrong. result may be NULL. */
EDGELLM_API edgellm_status edgellm_verify_file(const char* path, size_t n_path_bytes,
                                               int32_t n_threads, edgellm_verify_result* result);

/* --- Text and ids --- */

enum {
  EDGELLM_TEXT_SPECIAL = 1, /* encode: special-token strings become special ids; decode: and back */
  EDGELLM_TEXT_BOS = 2      /* encode: put in front what the model's post-processor puts there */
};

/* A tokenizer without a model, from the "tokenizer" blob of one. */
EDGELLM_API edgellm_status edgellm_tokenizer_create(const void* blob, size_t n_blob_bytes,
                                                    edgellm_tokenizer** tokenizer);
EDGELLM_API edgellm_status edgellm_tokenizer_n_vocab(const edgellm_tokenizer* tokenizer,
                                                     int32_t* n_vocab);
EDGELLM_API edgellm_status edgellm_tokenizer_encode(const edgellm_tokenizer* tokenizer,
                                                    const char* text, size_t n_text_bytes,
                                                    uint32_t flags, int32_t* ids, size_t capacity,
                                                    size_t* n_needed);
EDGELLM_API edgellm_status edgellm_tokenizer_decode(const edgellm_tokenizer* tokenizer,
                                                    const int32_t* ids, size_t n_ids,
                                                    uint32_t flags, char* buffer, size_t capacity,
                                                    size_t* n_needed);
EDGELLM_API edgellm_status edgellm_tokenizer_token_text(const edgellm_tokenizer* tokenizer,
                                                        int32_t id, char* buffer, size_t capacity,
                                                        size_t* n_needed);
EDGELLM_API edgellm_status edgellm_tokenizer_is_special(const edgellm_tokenizer* tokenizer,
                                                        int32_t id, int32_t* is_special);
EDGELLM_API void edgellm_tokenizer_free(edgellm_tokenizer* tokenizer);

/* Ids in, complete UTF-8 out. push and flush add text to the decoder, take moves it out: whatever
 * the buffer, no text is lost. flush gives what is still incomplete as U+FFFD. */
EDGELLM_API edgellm_status edgellm_stream_decoder_create(const edgellm_tokenizer* tokenizer,
                                                         uint32_t flags,
                                                         edgellm_stream_decoder** decoder);
EDGELLM_API edgellm_status edgellm_stream_decoder_push(edgellm_stream_decoder* decoder, int32_t id);
EDGELLM_API edgellm_status edgellm_stream_decoder_flush(edgellm_stream_decoder* decoder);
EDGELLM_API edgellm_status edgellm_stream_decoder_take(edgellm_stream_decoder* decoder,
                                                       char* buffer, size_t capacity,
                                                       size_t* n_needed);
EDGELLM_API void edgellm_stream_decoder_free(edgellm_stream_decoder* decoder);

/* Makes text safe for a terminal: controls become visible, ill-formed UTF-8 becomes U+FFFD. */
EDGELLM_API edgellm_status edgellm_sanitize(const char* text, size_t n_text_bytes, char* buffer,
                                            size_t capacity, size_t* n_needed);

/* --- Sessions: one sequence of tokens --- */

typedef struct edgellm_session_state {
  size_t struct_size;
  int32_t n_ctx;
  int32_t n_vocab;
  int32_t n_tokens;    /* processed */
  int32_t n_pending;   /* appended, not yet processed */
  int32_t n_recompute; /* of n_tokens, those that the next run computes again */
  int32_t n_dropped;   /* of n_tokens, those that a kv head does not see: shifted or compressed */
} edgellm_session_state;
#define EDGELLM_SESSION_STATE_INIT {sizeof(edgellm_session_state), 0, 0, 0, 0, 0, 0}

typedef struct edgellm_session_stats {
  size_t struct_size;
  int64_t n_prefill_tokens;
  int64_t n_decode_tokens;
  int64_t n_steps; /* passes over the weights */
  double prefill_ms;
  double decode_ms;
  uint64_t kv_bytes;           /* in pages held now */
  int64_t n_recomputed_tokens; /* once more, after a rewind; their time is in prefill_ms */
  int64_t n_reused_tokens;     /* not processed: their KV was there from other texts */
  int64_t n_disk_tokens;       /* of these: it was read from kv_cache_dir */
  int64_t is_speculating;      /* 0 or 1 */
  int64_t n_drafted_tokens;    /* guessed, and verified beside others, of which */
  int64_t n_accepted_tokens;   /* were right */
  double saved_ms;             /* by that, as far as measured */
  int64_t n_capped_steps;      /* that took in less for the sake of latency_budget_ms */
} edgellm_session_stats;
#define EDGELLM_SESSION_STATS_INIT \
  {sizeof(edgellm_session_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What one kind of guessing did in a session. */
typedef struct edgellm_drafter_stats {
  size_t struct_size;
  char name[16]; /* "suffix", "recycling", ... and NUL */
  int64_t n_drafted_tokens;
  int64_t n_accepted_tokens;
} edgellm_drafter_stats;
#define EDGELLM_DRAFTER_STATS_INIT {sizeof(edgellm_drafter_stats), {0}, 0, 0}

/* Filters apply in the order of the fields, to softmax(logits / temperature). */
typedef struct edgellm_sampler_params {
  size_t struct_size;
  double temperature; /* 0: greedy, ties to the lower id; at most 100 */
  int64_t top_k;      /* 0: all */
  double top_p;       /* (0, 1] */
  double min_p;       /* [0, 1], relative to the best token */
  uint64_t seed;
} edgellm_sampler_params;
#define EDGELLM_SAMPLER_PARAMS_INIT {sizeof(edgellm_sampler_params), 0, 0, 1, 0, 0}

enum {
  EDGELLM_SESSION_APART = 1 /* neither finds KV that other texts have left nor leaves its own */
};

typedef struct edgellm_session_options {
  size_t struct_size;
  int32_t n_ctx;          /* 0: as many positions as the model was trained for */
  int32_t priority;       /* as edgellm_session_set_priority() */
  const char* name_space; /* only texts of the same one share KV: of one tenant, for example */
  size_t n_name_space_bytes;
  const edgellm_adapter* adapter; /* as edgellm_session_set_adapter() */
  uint64_t flags;                 /* EDGELLM_SESSION_... */
} edgellm_session_options;
#define EDGELLM_SESSION_OPTIONS_INIT {sizeof(edgellm_session_options), 0, 0, NULL, 0, NULL, 0}

/* n_ctx 0: as many positions as the model was trained for. */
EDGELLM_API edgellm_status edgellm_session_create(const edgellm_model* model, int32_t n_ctx,
                                                  edgellm_session** session);
/* options may be NULL: the defaults. */
EDGELLM_API edgellm_status edgellm_session_create_with(const edgellm_model* model,
                                                       const edgellm_session_options* options,
                                                       edgellm_session** session);
/* Another one with the same tokens, queue and logits; common KV is held once. */
EDGELLM_API edgellm_status edgellm_session_fork(const edgellm_session* session,
                                                edgellm_session** other);
/* Before sessions of lower priority where a step has not room for all; 0 at first. */
EDGELLM_API edgellm_status edgellm_session_set_priority(edgellm_session* session, int32_t priority);
EDGELLM_API edgellm_status edgellm_session_get_state(const edgellm_session* session,
                                                     edgellm_session_state* state);
/* The processed tokens. */
EDGELLM_API edgellm_status edgellm_session_token_ids(const edgellm_session* session, int32_t* ids,
                                                     size_t capacity, size_t* n_needed);
/* Queues all ids or none. */
EDGELLM_API edgellm_status edgellm_session_append(edgellm_session* session, const int32_t* ids,
                                                  size_t n_ids);
/* Processes until budget_ms are spent, at least one step of up to 128 tokens; *is_done: 1 when
   nothing is pending. */
EDGELLM_API edgellm_status edgellm_session_run(edgellm_session* session, double budget_ms,
                                               int32_t* is_done);
/* Runs sessions of one model, none twice, in steps that they share, until one that had tokens
 * pending has none, or budget_ms are spent; at least one step. statuses[n_sessions]: how each went,
 * is_done[n_sessions]: 1 when nothing is pending. The status of the call says whether it was a
 * right one; edgellm_last_error() is about the last session that failed. Sessions that other
 * threads run share steps as well: this is for one thread that has many. */
EDGELLM_API edgellm_status edgellm_run_together(edgellm_session* const* sessions, size_t n_sessions,
                                                double budget_ms, edgellm_status* statuses,
                                                int32_t* is_done);
/* As run, with the logits [n_processed][n_vocab] of the tokens processed now; *n_floats of them.
 * The buffer must hold those of all pending tokens: *n_needed. With a smaller one nothing runs. */
EDGELLM_API edgellm_status edgellm_session_run_with_logits(edgellm_session* session,
                                                           double budget_ms, float* logits,
                                                           size_t capacity, size_t* n_needed,
                                                           size_t* n_floats, int32_t* is_done);
/* The same with hidden states, the output of the final norm: [n_processed][d_model], d_model being
 * that of the spec and *n_needed divided by the pending tokens. The head does not run: there are no
 * logits afterwards. */
EDGELLM_API edgellm_status edgellm_session_run_with_hidden(edgellm_session* session,
                                                           double budget_ms, float* hidden,
                                                           size_t capacity, size_t* n_needed,
                                                           size_t* n_floats, int32_t* is_done);
/* Keeps the first n_tokens processed tokens, drops the others and the queue. Logits stay only if
 * they are those of the last kept token. In a model whose layers have windows more than 128 tokens
 * back may be gone: the next run then first computes the kept tokens again. */
EDGELLM_API edgellm_status edgellm_session_rewind(edgellm_session* session, int32_t n_tokens);
/* Long contexts (docs/KV.md). What they take out of the KV still counts as a token; such KV is
 * neither shared nor saved, and a rewind to before the gap computes all again.
 * Tokens [n_sink, n_sink + n_drop) of the KV go, and the others move down; multiples of 16, n_sink
 * at least 32. */
EDGELLM_API edgellm_status edgellm_session_shift(edgellm_session* session, int32_t n_sink,
                                                 int32_t n_drop);
/* From now on a full KV shifts out all but n_sink and at least `window` of the last tokens. */
EDGELLM_API edgellm_status edgellm_session_stream_within(edgellm_session* session, int32_t n_sink,
                                                         int32_t window);
/* Leaves every kv head n_keep tokens: the first n_sink, the last `window`, and those that these pay
 * attention to, shares pooled over `pool` tokens; 4, 32 and 7 are good numbers. Processes the
 * window once more. */
EDGELLM_API edgellm_status edgellm_session_compress(edgellm_session* session, int32_t n_keep,
                                                    int32_t n_sink, int32_t window, int32_t pool);
/* Gives KV back until the system has got n_bytes (UINT64_MAX: all), as far as the next run can
 * compute it again with the same bits. *n_freed (may be NULL): what the system got. */
EDGELLM_API edgellm_status edgellm_session_trim(edgellm_session* session, uint64_t n_bytes,
                                                uint64_t* n_freed);
/* Of the tokens processed, those that at least one kv head sees: pairs (first, end), one after the
 * other; *n_needed counts numbers. */
EDGELLM_API edgellm_status edgellm_session_kept_ranges(const edgellm_session* session,
                                                       int32_t* ranges, size_t capacity,
                                                       size_t* n_needed);
/* What was processed, with its KV, to a file that is there whole or not at all; tokens that are
 * pending are refused. note: kept with it, at most 64 MiB. */
EDGELLM_API edgellm_status edgellm_session_save(const edgellm_session* session, const char* path,
                                                size_t n_path_bytes, const void* note,
                                                size_t n_note_bytes);
/* Of a session without tokens: goes on where the saved one stopped, with the same bits. Fails with
 * "session_mismatch" for another model, tokenizer, KV format or rotary table, "session_hash" for
 * damaged bytes; the session then has no tokens, as before. */
EDGELLM_API edgellm_status edgellm_session_restore(edgellm_session* session, const char* path,
                                                   size_t n_path_bytes);
/* The note of a saved session. */
EDGELLM_API edgellm_status edgellm_session_file_note(const char* path, size_t n_path_bytes,
                                                     void* buffer, size_t capacity,
                                                     size_t* n_needed);
/* [n_vocab] of the last token. */
EDGELLM_API edgellm_status edgellm_session_logits(const edgellm_session* session, float* logits,
                                                  size_t capacity, size_t* n_needed);
/* params NULL: greedy. step: counter of the random stream; negative: the position of the token to
 * come. logprob (may be NULL): log softmax of the raw logits. */
EDGELLM_API edgellm_status edgellm_session_sample(const edgellm_session* session,
                                                  const edgellm_sampler_params* params,
                                                  int64_t step, int32_t* id, double* logprob);
/* From any thread: the run under way, or else the next one, fails with "cancelled" once. */
EDGELLM_API edgellm_status edgellm_session_cancel(edgellm_session* session);
EDGELLM_API edgellm_status edgellm_session_get_stats(const edgellm_session* session,
                                                     edgellm_session_stats* stats);
/* Of the kind with this index among the *n_drafters that have guessed anything; `stats` is left
 * alone beyond them. */
EDGELLM_API edgellm_status edgellm_session_get_drafter_stats(const edgellm_session* session,
                                                             size_t index,
                                                             edgellm_drafter_stats* stats,
                                                             size_t* n_drafters);
/* is_on 0 or 1: whether run guesses what follows a single token and verifies it in the same step.
 * Tokens and logits are the same either way. "memory_budget"; "feature_unsupported" for a session
 * with a name space. */
EDGELLM_API edgellm_status edgellm_session_set_speculation(edgellm_session* session, int32_t is_on);
/* Frees the KV pages now; later calls fail. Idempotent. */
EDGELLM_API edgellm_status edgellm_session_close(edgellm_session* session);
EDGELLM_API void edgellm_session_free(edgellm_session* session);

/* --- The machine --- */

typedef struct edgellm_machine_facts {
  size_t struct_size;
  int32_t default_n_threads;
  int32_t n_isa_levels;
  uint64_t total_bytes;
  uint64_t available_bytes;
  uint64_t rss_bytes;
  uint64_t peak_rss_bytes;
} edgellm_machine_facts;
#define EDGELLM_MACHINE_FACTS_INIT {sizeof(edgellm_machine_facts), 0, 0, 0, 0, 0, 0}

EDGELLM_API edgellm_status edgellm_machine_get_facts(edgellm_machine_facts* facts);
/* The instruction set in use, and those this CPU can run, best first. */
EDGELLM_API edgellm_status edgellm_active_isa(char* buffer, size_t capacity, size_t* n_needed);
EDGELLM_API edgellm_status edgellm_isa_level(int32_t index, char* buffer, size_t capacity,
                                             size_t* n_needed);

/* --- Adapters: low-rank changes of a model's matrices (docs/ADAPTERS.md) --- */

/* The file is one of `edgellm convert --base`; all of it is hashed, and it must go with the model.
 * Counted against the model's memory cap until it is freed and no session uses it. */
EDGELLM_API edgellm_status edgellm_adapter_load(const edgellm_model* model, const char* path,
                                                size_t n_path_bytes, edgellm_adapter** adapter);
EDGELLM_API void edgellm_adapter_free(edgellm_adapter* adapter);
/* All tokens go through it from now on; NULL: none. Unless it has the content of the one before,
 * tokens processed and queued are dropped. */
EDGELLM_API edgellm_status edgellm_session_set_adapter(edgellm_session* session,
                                                       const edgellm_adapter* adapter);

#ifdef __cplusplus
}
#endif

#endif
