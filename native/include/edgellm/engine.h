// The public C++ interface of the edgellm runtime: a model file in, tokens out.
//
//   edgellm::Model model = edgellm::Model::load("model.edge");
//   edgellm::Session session(model);
//   session.append(model.tokenizer()->encode("Once upon a time"));
//   while (!session.run()) {}
//   edgellm::SampledToken token = session.sample({});
//
// Failures throw edgellm::Error. Objects are handles: a copy names the same thing, and what they
// need lives as long as they do. Nothing here calls back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edgellm/kv_figures.h"
#include "edgellm/weights.h"

namespace edgellm {

// code(): the stable name of what went wrong ("leaf_hash"); category(): the class of error that the
// Python binding raises for it ("IntegrityError"). what() says what, where and what to do.
class Error : public std::runtime_error {
 public:
  Error(std::string_view code, std::string_view category, const std::string& message)
      : std::runtime_error(message), code_(code), category_(category) {}
  const std::string& code() const { return code_; }
  const std::string& category() const { return category_; }

 private:
  std::string code_;
  std::string category_;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct TensorInfo {
  std::string name, role, format, act;
  int64_t n_rows = 0;  // logical; 1 for vectors and blobs
  int64_t n_cols = 0;
  uint64_t offset = 0;  // from EdgeFile::data_start()
  uint64_t n_bytes = 0;
};

// A `.edge` file, mapped: structure, header hash and hash root are checked, data is not.
class EdgeFile {
 public:
  explicit EdgeFile(const std::string& path);
  const Metadata& metadata() const;
  std::vector<TensorInfo> tensors() const;  // file order, blobs included
  std::string_view root() const;            // 64 hex digits: the identity of the model
  uint64_t file_bytes() const;
  uint64_t data_start() const;
  // The stored bytes of a tensor or blob, inside the mapping; nullopt if there is none.
  std::optional<std::span<const std::byte>> find(std::string_view name) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

// Hashes a whole file now; throws for the first leaf that is wrong.
struct VerifyResult {
  std::string root;
  uint64_t file_bytes = 0;
  uint64_t n_leaves = 0;
  double verify_ms = 0;
};
VerifyResult verify_file(const std::string& path, int n_threads = 0);

// Text <-> ids. Thread-safe.
class Tokenizer {
 public:
  static Tokenizer from_blob(std::string blob);
  // special: special-token strings in the text become special ids. bos: put in front what the
  // model's post-processor puts there.
  std::vector<int32_t> encode(std::string_view text, bool special = false, bool bos = true) const;
  std::string decode(std::span<const int32_t> ids, bool special = false) const;
  std::string token_text(int32_t id) const;
  std::string token_bytes(int32_t id) const;  // what it adds inside a text, maybe half a character
  bool is_special(int32_t id) const;
  int32_t n_vocab() const;

  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// Ids in, complete UTF-8 out; the pieces joined equal decode() of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool special = false);
  std::string push(int32_t id);
  std::string flush();  // what is still incomplete, as U+FFFD

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

enum class Verify { kOnce, kAlways, kNever };

// Whether sessions guess tokens and verify several of them in one step, which changes none
// (docs/SPECULATION.md): kAuto: where there is memory to spare; kOn: or "memory_budget"; kAlways:
// as if a row more took no time, for tests and measurements.
enum class Speculate { kOff, kAuto, kOn, kAlways };

class Model;

struct LoadOptions {
  int n_threads = 0;              // 0: default_n_threads()
  Verify verify = Verify::kOnce;  // once: in the background; what it finds fails the next run()
  // Cap on file + scratch + what sessions take, KV and logits; 0: what the machine has available.
  uint64_t max_memory_bytes = 0;
  // Check the cap for a session of this size now; 0: one KV page. Where a file has rotary tables
  // for short and for long contexts it decides between them for good, 0 like n_ctx_train; no
  // session is longer than the table is meant for. With graphs of an NPU: more than they hold runs
  // on the CPU, and nothing is longer than they are where this is not said.
  int n_ctx = 0;
  // What a step may take that reads a prompt while other sessions decode, as far as the rows of
  // those leave time; 0: twice as long as a step without.
  double latency_budget_ms = 0;
  // KV of texts that no session holds, kept for those that begin alike; it gives way to sessions.
  // UINT64_MAX: an eighth of what the cap leaves for KV.
  uint64_t prefix_cache_bytes = UINT64_MAX;
  // How keys and values are kept, docs/KV.md; feature_unsupported for a name that is not there.
  std::string kv_format = "K8V8";
  // A directory for KV of texts that leave memory, made if it is not there, and for this user alone
  // (docs/SESSIONS.md); "": none. Processes may share it.
  std::string kv_cache_dir = {};
  uint64_t kv_cache_disk_bytes = uint64_t{1} << 30;  // that its files may take
  Speculate speculate = Speculate::kAuto;            // of sessions, until set_speculation()
  // Guesses for sessions that speculate: a small model with the same tokens, draft_mismatch
  // otherwise; its file and scratch count for the cap, and its KV, of up to 1,024 tokens, with each
  // session. It may be closed: nothing guesses then.
  std::shared_ptr<const Model> draft_model = nullptr;
  int draft_layers = 0;  // guess by the first so many of the model's own layers and its head; 0: no
  std::string backend = "cpu";  // or "cuda", "cuda-fp8", "metal", "vulkan", "npu", docs/backends.md
  // For "npu", whose kv_format is "F16": "bundle", a folder of `edgellm convert --target npu:...`,
  // "generation" where it is for several, "library", onnxruntime's, and for an execution provider
  // "provider", the "provider_library" of its own, if there is one, and options as "provider.NAME".
  Metadata npu = {};
  // What edgellm.header_sha256 of the file must be, or "signature_digest"; it stands for every byte
  // of a file that is verified. "": anything.
  std::string header_sha256 = {};
};

struct ModelInfo {
  std::string spec_json;
  Metadata metadata;
  std::string root, backend;
  int n_vocab = 0;
  int d_model = 0;      // values of a hidden state
  int n_ctx_train = 0;  // with graphs of an NPU no more than they hold
  int32_t bos_id = -1;  // -1: none
  std::vector<int32_t> eos_ids;
  std::string kv_format;            // as in LoadOptions
  uint64_t kv_bytes_per_token = 0;  // of all groups: what a token takes until it leaves a window
  std::vector<KvGroup> kv_groups;   // by ascending window, states last
  uint64_t session_bytes = 0;       // that a session reserves besides its KV, for logits
  uint64_t scratch_bytes = 0;
  uint64_t file_bytes = 0;
  int n_threads = 0;
  int n_host_layers = 0;   // the first so many run on the CPU: the device's memory is short
  int n_graph_tokens = 0;  // with graphs of an NPU: tokens behind these run on the CPU; 0: none do
  double load_ms = 0;
};

// A loaded model. Thread-safe: steps of all its sessions take turns.
class Model {
 public:
  static Model load(const std::string& path, const LoadOptions& options = {});
  const ModelInfo& info() const;
  // The KV that Session(model, n_ctx) reserves, which is the most that it ever holds.
  uint64_t kv_bytes(int n_ctx = 0) const;
  std::optional<Tokenizer> tokenizer() const;                    // nullopt if the file has none
  std::optional<std::string> blob(std::string_view name) const;  // a copy; nullopt if absent
  double verified_fraction() const;
  KvFigures kv_figures() const;
  // Gives back so many bytes of KV that no session holds, least recently used first, or all there
  // are, to the kv_cache_dir if there is one. Returns how many.
  uint64_t trim(uint64_t n_bytes = UINT64_MAX);
  // [n_layers][n_experts]: tokens that went to each expert since the model was loaded, those of
  // runs that were cancelled included; empty for a layer without experts. Waits for a step.
  std::vector<std::vector<uint64_t>> expert_load() const;
  // Frees everything but what Tokenizers still use; KV goes to the kv_cache_dir if there is one. A
  // run() in another thread throws "cancelled"; later calls throw "invalid_argument". Idempotent.
  void close();
  bool is_closed() const;

  struct Impl;
  explicit Model(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

struct AdapterInfo {
  Metadata metadata;
  std::string root;  // of its file: what tells adapters apart
  int rank = 0;      // the largest of its matrices
  uint64_t n_parameters = 0;
  uint64_t file_bytes = 0;
  // Taken from the model's memory cap while the adapter lives: the file; and, until the model is
  // closed, what the first adapter of this or a higher rank adds to the scratch of steps.
  uint64_t scratch_bytes = 0;
};

// Low-rank changes of a model's matrices, never merged: any number of them beside one model, each
// for the sessions that name it.
class Adapter {
 public:
  // Maps a file made by `edgellm convert` of a PEFT directory, hashes it, and checks that it goes
  // with the model.
  static Adapter load(const Model& model, const std::string& path);
  const AdapterInfo& info() const;

  struct Impl;
  explicit Adapter(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// What makes tokens more or less likely before filters; docs/SAMPLING.md says how. Applied in the
// order of the fields; the defaults do nothing.
struct LogitRuleParams {
  double repetition_penalty = 1;   // (0, 100], over prompt and generated tokens
  int64_t penalty_window = 0;      // of the repetition penalty: the last so many tokens; 0: all
  double presence_penalty = 0;     // [-2, 2], over generated tokens
  double frequency_penalty = 0;    // [-2, 2], over generated tokens
  double dry_multiplier = 0;       // [0, 100]; 0: off
  double dry_base = 1.75;          // [1, 10]
  int64_t dry_allowed_length = 2;  // >= 1
  int64_t dry_range = 0;           // the last so many tokens; 0: all
  std::vector<std::vector<int32_t>> dry_breakers = {};  // a repeat never reaches back over these
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // -infinity bans
  int64_t min_tokens = 0;                                   // end_ids are banned for so many tokens
  std::vector<int32_t> end_ids = {};
};

// Checked rules, shared by all copies. The default: none.
class LogitRules {
 public:
  LogitRules() = default;
  // Throws for the first parameter out of its range, naming it.
  explicit LogitRules(LogitRuleParams params);

  struct Impl;
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// Filters apply in the order of the fields, to softmax(logits / temperature) after the rules.
struct SamplerParams {
  double temperature = 0;      // 0: greedy, ties to the lower id, no filter; at most 100
  int64_t top_k = 0;           // 0: all
  double top_p = 1;            // (0, 1]
  double min_p = 0;            // [0, 1], relative to the best token
  double typical_p = 1;        // (0, 1]
  double xtc_probability = 0;  // [0, 1]
  double xtc_threshold = 0.1;  // (0, 0.5]
  uint64_t seed = 0;
  LogitRules rules = {};
  void check() const;  // throws for the first parameter out of its range, naming it
};

struct SampledToken {
  int32_t id = 0;
  double logprob = 0;  // log softmax of the raw logits
};

struct TokenShare {
  int32_t id = 0;
  double probability = 0;  // > 0
};

// The sampler on logits of the caller's. history: the tokens before the one to come, of which the
// first n_prompt are the prompt (negative: not known; refused where a rule must know).
std::vector<float> apply_rules(std::span<const float> logits, const LogitRules& rules,
                               std::span<const int32_t> history = {}, int64_t n_prompt = -1);
// Every token that can be drawn at this step, with its probability.
std::vector<TokenShare> distribution(std::span<const float> logits, const SamplerParams& params,
                                     int64_t step, std::span<const int32_t> history = {},
                                     int64_t n_prompt = -1);

// Tokens that one kind of guessing had in steps before they came, and those that did come.
struct DrafterStats {
  std::string name;  // "suffix", "recycling", ...
  int64_t n_drafted = 0;
  int64_t n_accepted = 0;
};

struct SessionStats {
  int64_t n_prefill_tokens = 0;
  int64_t n_decode_tokens = 0;
  int64_t n_steps = 0;              // passes over the weights
  int64_t n_reused_tokens = 0;      // not processed: their KV was there from other texts
  int64_t n_disk_tokens = 0;        // of these: it was read from LoadOptions::kv_cache_dir
  int64_t n_recomputed_tokens = 0;  // once more, after rewind(); their time is in prefill_ms
  double prefill_ms = 0;
  double decode_ms = 0;
  uint64_t kv_bytes = 0;  // in pages held now
  bool is_speculating = false;
  std::vector<DrafterStats> drafters = {};  // that have drafted
  double saved_ms = 0;  // by that, over steps for single tokens, as far as measured
  // Steps with fewer guesses or rows of a prompt, for the sake of latency_budget_ms.
  int64_t n_capped_steps = 0;
};

// A session on disk (docs/KV.md): token ids, their KV, the logits of the last one, and a note of
// whoever saved it. All but the KV is checked here, that by Session::restore().
class SessionFile {
 public:
  static SessionFile open(const std::string& path);
  const std::string& note() const;
  std::vector<int32_t> token_ids() const;
  int n_kv_tokens() const;    // of the ids, those with KV
  Metadata identity() const;  // what the KV depends on: model, tokenizer, KV format, adapter, ...

  struct Impl;
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// Whether a session begins with KV that other texts have left, and leaves its own. Only texts with
// the same name_space, adapter and model share; bits are the same either way.
struct PrefixReuse {
  bool is_on = true;
  std::string name_space;
};

class Session;

// What run_together() returns of the tokens of a session that it processed.
enum class Keep { kNothing, kLogits, kHidden };

// A session in run_together(), and how it went.
struct SessionRun {
  Session* session = nullptr;
  Keep keep = Keep::kNothing;
  bool is_done = false;             // nothing is pending
  std::vector<float> rows = {};     // as run_with_logits() or run_with_hidden(), by `keep`
  std::optional<Error> error = {};  // what run() would have thrown
};

// One sequence of tokens. append() queues, run() processes; n_tokens() and token_ids() count what
// was processed. Thread-safe by one lock, so cancel() is what another thread has use for.
class Session {
 public:
  // n_ctx: 0 for the most, as a rule n_ctx_train. adapter: one loaded with this model.
  explicit Session(const Model& model, int n_ctx = 0,
                   const std::optional<Adapter>& adapter = std::nullopt,
                   const PrefixReuse& reuse = {});
  // Another one with the same tokens, queue and logits. What they have in common is held once.
  Session fork() const;
  int n_ctx() const;
  int n_vocab() const;
  int d_model() const;
  int n_tokens() const;
  int n_pending() const;
  // Of n_tokens(), those whose KV rewind() had to drop: the next run() with tokens to process
  // computes them again first. 0 in models without windows.
  int n_recompute() const;
  std::vector<int32_t> token_ids() const;
  void append(std::span<const int32_t> ids);  // all or none
  // True when nothing is pending, false when the budget is spent first; at least one step, of up to
  // 128 tokens. Throws "cancelled" once should_stop returns true: it is asked a few times a layer.
  bool run(double budget_ms = 80, const std::function<bool()>& should_stop = {});
  // As run(); returns the logits [n_processed][n_vocab] of the tokens processed now.
  std::vector<float> run_with_logits(double budget_ms = 80,
                                     const std::function<bool()>& should_stop = {});
  // As run(), without the head; returns the hidden states [n_processed][d_model] of the tokens
  // processed now: the output of the final norm. There are no logits afterwards.
  std::vector<float> run_with_hidden(double budget_ms = 80,
                                     const std::function<bool()>& should_stop = {});
  // Runs sessions of one model, none twice, with their rows in the same steps, until one that had
  // tokens pending has none, or the budget is spent; at least one step. An error of one session, or
  // its cancel(), is its own. Sessions that run() in other threads share steps as well; this is for
  // one thread that has many.
  static void run_together(std::span<SessionRun> runs, double budget_ms = 80,
                           const std::function<bool()>& should_stop = {});
  // Keeps the first n_tokens processed tokens, drops the others and the queue. Logits stay only if
  // they are those of the last kept token; to sample again at another one, rewind to one token less
  // and append it again. Layers with a window keep what it sees and 128 tokens before; farther back
  // rewind() costs the next run() the time to compute the kept tokens again, with the same bits.
  void rewind(int n_tokens);
  // How many tokens the session may come to have after rewind(n_tokens): n_ctx(), and as many more
  // as were shifted or compressed out of its KV before that, within the positions of the model.
  int most_tokens_after(int n_tokens) const;
  // Long contexts (docs/KV.md). What they take out of the KV still counts in n_tokens() and stands
  // in token_ids(); such KV is neither shared nor saved, and rewind() to before the gap computes
  // all again.
  // Tokens [n_sink, n_sink + n_drop) of the KV go, the keys behind are turned to where they come to
  // stand. Multiples of 16, n_sink at least 32.
  void shift(int n_sink, int n_drop);
  // From now on a full KV shifts out all but n_sink and at least `window` of the last tokens.
  void stream_within(int n_sink, int window);
  // Leaves every kv head n_keep tokens: the first n_sink, the last `window`, and those that these
  // pay attention to, shares pooled over `pool` tokens. Processes the window once more.
  void compress(int n_keep, int n_sink = 4, int window = 32, int pool = 7,
                const std::function<bool()>& should_stop = {});
  // Gives KV back until the OS has got n_bytes, as far as the next run() can compute it again with
  // the same bits (n_recompute()); returns what the OS got.
  uint64_t trim(uint64_t n_bytes = UINT64_MAX);
  // Ranges (first, end) of the processed tokens that at least one kv head sees, and how many of
  // them a kv head does not see.
  std::vector<std::pair<int32_t, int32_t>> kept_ranges() const;
  int n_dropped() const;
  // Goes before sessions of lower priority where a step has not room for all; 0 at first.
  void set_priority(int priority);
  // Whether run() guesses what follows a single token: what is right costs the next run() no step.
  // "memory_budget"; "feature_unsupported" with a name space: who guesses learns from others.
  void set_speculation(bool is_on);
  // Another adapter from now on, or none. Unless it is the same by its root, all tokens go, since
  // their keys and values are the other one's.
  void set_adapter(const std::optional<Adapter>& adapter);
  // What was processed, to a file, whole or not at all; throws while tokens are pending. note: kept
  // with it, at most 64 MiB.
  void save(const std::string& path, std::string_view note = {}) const;
  // Of a session without tokens: goes on where the saved one stopped, with the same bits. Throws
  // "session_mismatch" for another model, tokenizer, adapter, KV format or rotary table, naming
  // what differs, and "session_hash" for damaged KV; the session then has no tokens, as before.
  void restore(const SessionFile& file);
  Metadata identity() const;          // as SessionFile::identity()
  std::vector<float> logits() const;  // [n_vocab] of the last token
  // step: counter of the random stream; the position of the token to come if negative. n_prompt:
  // tokens that were not generated; negative: not known, which rules that must know refuse.
  // allowed: one bit for each id, ceil(n_vocab / 32) words, the lowest id in the lowest bit; others
  // cannot be chosen. Empty: all are allowed.
  SampledToken sample(const SamplerParams& params, int64_t step = -1, int64_t n_prompt = -1,
                      std::span<const uint32_t> allowed = {}) const;
  // sample() of several sessions of one model, none twice, spread over its threads. Empty where
  // that would throw: call it to learn why. n_prompts: one for each session; allowed: too, or none.
  static std::vector<std::optional<SampledToken>> sample_together(
      std::span<const Session* const> sessions, std::span<const SamplerParams* const> params,
      std::span<const int64_t> n_prompts, std::span<const std::span<const uint32_t>> allowed = {});
  // The k most likely next tokens under the raw softmax, best first.
  std::vector<SampledToken> top_logprobs(int64_t k) const;
  void cancel();  // the current run(), or else the next one, throws "cancelled" once
  SessionStats stats() const;
  void close();  // frees the KV pages now; idempotent

  struct Impl;

 private:
  explicit Session(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

// The machine and the build.
struct MemoryFigures {
  uint64_t total_bytes = 0, available_bytes = 0, rss_bytes = 0, peak_rss_bytes = 0;
};
struct FormatInfo {
  std::string name;
  int group_k = 0;        // columns that share a scale
  size_t tile_bytes = 0;  // of 16 rows x 32 columns
  size_t head_bytes = 0;  // of 16 rows for every 8 tiles besides; 0 in most formats
};
std::vector<std::string> isa_levels();  // that this CPU can run, best first
std::string active_isa();
int default_n_threads();
MemoryFigures memory_figures();
std::vector<FormatInfo> format_table();
std::vector<std::pair<std::string, std::string>> error_table();  // (code, category)
double measure_read_bandwidth(int n_threads = 0);                // bytes per second
double measure_int8_peak(int n_threads = 0);                     // multiply-accumulates per second

// Text from a file or a model, made safe for a terminal: C0 except \n and \t, DEL, C1 and
// bidirectional controls become visible, ill-formed UTF-8 becomes U+FFFD.
std::string sanitize(std::string_view text);

}  // namespace edgellm
