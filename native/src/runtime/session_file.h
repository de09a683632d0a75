// SessionFile: a sequence on disk: token ids, KV pages, the logits of the last token, and a note of
// the caller's. docs/KV.md gives the bytes.
//
// Readers trust nothing: every length is checked before it is used, the header stands under SHA-256
// and everything else under XXH64 (which finds accidents; a file that was forged can at worst make
// wrong text). open() checks all but the pages, which are checked after they were copied to where
// they are used. Knows nothing of models: what the KV depends on is texts that must be equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/os.h"
#include "base/status.h"
#include "kernels/kv_format.h"

namespace edge {

constexpr size_t kMaxSessionNoteBytes = size_t{64} << 20;

// What the KV of a sequence depends on, as texts without quotes, backslashes and controls.
struct SessionIdentity {
  std::string model;      // root of the file
  std::string spec;       // digest of what the file says about the model
  std::string tokenizer;  // digest; "": none
  std::string kv_format;
  std::string kv_layout;  // digest of where the values of a page stand
  std::string rope;       // which of the model's rotary tables
  std::string adapter;    // root; "": none

  std::vector<std::pair<std::string, std::string>> items() const;  // names and texts
  // kSessionMismatch that names every difference and says what to do.
  Status check_same(const SessionIdentity& current) const;
};

struct SessionGroup {
  int first_page = 0;
  int n_pages = 0;  // held, from first_page on
  int window = 0;
  uint64_t page_bytes = 0;
  uint64_t first_page_bytes = 0;  // of each of the first kFirstPages

  uint64_t bytes_of(int number) const {
    return number < kFirstPages ? first_page_bytes : page_bytes;
  }
};

struct SessionContent {
  SessionIdentity identity;
  std::span<const int32_t> ids;
  int n_kv_tokens = 0;                            // of the ids, those with KV
  std::span<const float> logits;                  // of the last id, or none
  std::string_view note;                          // the caller's
  std::vector<SessionGroup> groups;               // as many as the cache has
  std::vector<std::span<const std::byte>> pages;  // by group and number
};

// Whole or not at all, and durable: kFileWriteFailed; kInvalidArgument for a note that is too long.
Status write_session_file(const std::string& path, const SessionContent& content, int n_threads);

class SessionFile {
 public:
  static Result<std::shared_ptr<const SessionFile>> open(const std::string& path);
  // The same over bytes that outlive the result; `name` stands for the path in messages.
  static Result<std::shared_ptr<const SessionFile>> from_bytes(std::span<const std::byte> bytes,
                                                               std::string name);
  SessionFile() = default;  // refers to itself once opened: neither copied nor moved
  SessionFile(const SessionFile&) = delete;
  SessionFile& operator=(const SessionFile&) = delete;

  const std::string& path() const { return path_; }
  const SessionIdentity& identity() const { return identity_; }
  std::span<const int32_t> ids() const { return ids_; }
  int n_kv_tokens() const { return n_kv_tokens_; }
  std::span<const float> logits() const { return logits_; }
  std::string_view note() const { return note_; }
  std::span<const SessionGroup> groups() const { return groups_; }
  size_t n_pages() const { return page_sums_.size(); }

  // Copies page i (by group and number) to `to`, which must have its size: kSessionHash when what
  // arrived is not what was written.
  Status read_page(size_t i, std::span<std::byte> to) const;

 private:
  Status parse();
  Status parse_header(std::string_view text);
  Status parse_sections(uint64_t at);
  Status check_pages(uint64_t& n_pages, uint64_t& n_bytes) const;

  struct Section {
    uint64_t n_bytes = 0;
    uint64_t sum = 0;
  };
  std::string path_;
  MappedFile map_;
  std::span<const std::byte> bytes_;  // the whole file
  SessionIdentity identity_;
  int n_kv_tokens_ = 0;
  std::vector<Section> sections_;  // note, ids, logits, page sums
  std::vector<SessionGroup> groups_;
  std::string_view note_;
  std::vector<int32_t> ids_;
  std::vector<float> logits_;
  std::vector<uint64_t> page_sums_;
  std::vector<uint64_t> page_offsets_;
};

}  // namespace edge
