// What the engine's interface says of the KV of a model.
#pragma once

#include <cstdint>

namespace edgellm {

// KV pages of a model in bytes, and what became of those of earlier texts.
struct KvFigures {
  uint64_t budget_bytes = 0;
  uint64_t reserved_bytes = 0;  // promised to sessions, or taken by adapters, of which
  uint64_t session_bytes = 0;   // the logits of open sessions
  uint64_t kept_bytes = 0;      // in pages that texts share, of which
  uint64_t idle_bytes = 0;      // no session holds
  uint64_t used_bytes = 0;      // in all pages, each counted once
  int64_t n_reused_tokens = 0;  // that were found so far
  int64_t n_evicted_tokens = 0;
  // In LoadOptions::kv_cache_dir: bytes of its files as far as known; then, of this model, tokens
  // written and read, files that were damaged and are gone, and writes that failed.
  uint64_t disk_bytes = 0;
  int64_t n_disk_written_tokens = 0;
  int64_t n_disk_read_tokens = 0;
  int64_t n_disk_damaged_files = 0;
  int64_t n_disk_failed_writes = 0;
};

// Layers with the same window, whose KV goes back together once no query sees it any more.
struct KvGroup {
  int window = 0;                // tokens that a query sees; 0: all
  uint64_t bytes_per_token = 0;  // keys and values
  uint64_t first_extra = 0;      // bytes by which the first 32 tokens together take more
};

}  // namespace edgellm
