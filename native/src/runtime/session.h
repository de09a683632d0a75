// Session: one sequence: its tokens, its KV pages and the logits of its last token. Its queued
// tokens go through the model in steps that the batcher cuts, alone or with those of other
// sessions; the results depend neither on the cut nor on the company.
//
// Layers with a window keep what it sees, and kKeptTokens positions before. rewind() goes back so
// far from the newest token that was processed, or anywhere in the first window, at no cost.
// Farther back pages are gone, and what they held depends on everything before: rewind() then drops
// all KV and keeps the ids, and the next run() with tokens to process first computes them again,
// with the same bits. Callers see the same counts and logits either way, n_recompute() and the
// stats say it.
//
// Tokens may be taken out of the KV's middle: by shift(), which stream() calls whenever the KV is
// full, or by compress(). All counts of tokens go on counting those, token_ids() has them, and
// kept_ranges() says which the KV still holds. What was processed while more was there cannot be
// computed again; rewind() to before it computes everything anew.
//
// With a source of drafts, a step for one token that was appended to an empty queue has rows of
// drafted tokens behind it. They do not count. Where the next append() brings one of them, run()
// finds it done; where it brings another one, or anything else happens, they are dropped. So their
// caller, who sees the logits of one token after the other, need not know of them.
//
// Knows nothing of text and sampling. For one thread at a time, except the cancel flag.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/stop_check.h"
#include "runtime/batcher.h"
#include "runtime/draft_source.h"
#include "runtime/kept_tokens.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_compress.h"
#include "runtime/kv_sequence.h"
#include "runtime/lookahead.h"
#include "runtime/sampler.h"
#include "runtime/session_file.h"
#include "runtime/session_options.h"

namespace edge {

// Tokens that had a row in a step before they were appended, and those of them that were.
struct DraftCount {
  int64_t n_drafted = 0;
  int64_t n_accepted = 0;
};

struct SessionStats {
  int64_t n_prefill_tokens = 0;
  int64_t n_decode_tokens = 0;
  int64_t n_steps = 0;
  int64_t n_reused_tokens = 0;      // not processed: their KV was known from other texts
  int64_t n_disk_tokens = 0;        // of these: it was read from disk
  int64_t n_recomputed_tokens = 0;  // again, after rewind(), trim() or in compress(); their time
                                    // is in prefill_ms
  double prefill_ms = 0;
  double decode_ms = 0;  // steps of single tokens appended after the first run
  uint64_t kv_bytes = 0;
  std::array<DraftCount, kDrafterKinds> drafts = {};  // by DrafterKind
  double saved_ms = 0;                                // by drafts, as far as known
  // Steps that had fewer drafts or rows of a prompt for the sake of the latency budget.
  int64_t n_capped_steps = 0;
};

class Session {
 public:
  // Reserves KV for n_ctx tokens and bytes_besides_kv(). `batcher`, `cache` and what the options
  // name must outlive the session.
  static Result<std::unique_ptr<Session>> create(Batcher& batcher, KvCache& cache,
                                                 const SessionOptions& options);
  // Another one with the same tokens, queue and logits, which shares the pages of those that are
  // shared and has copies of the others. kMemoryBudget, kOutOfMemory.
  Result<std::unique_ptr<Session>> fork() const;
  ~Session();
  // Of a session of this model: the logits of its last token.
  static uint64_t bytes_besides_kv(const StepModel& model);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int n_ctx() const { return kv_->n_ctx(); }
  int n_tokens() const { return n_done_; }  // processed
  int n_pending() const { return static_cast<int>(tokens_.size()) - n_done_; }
  // Of n_tokens(), those that the next run() with tokens to process computes again.
  int n_recompute() const { return n_done_ - n_computed(); }
  std::span<const int32_t> token_ids() const;  // processed
  SessionStats stats() const;

  // Queues all tokens or none: kTokenOutOfRange, kContextOverflow.
  Status append(std::span<const int32_t> ids);

  // Processes queued tokens until none is left or budget_ms are spent; at least one step, which for
  // a prompt may take longer (128 rows cost little more than the weights' way from memory to the
  // cores), and so does the wait for the step of others that is under way. The cancel flag and
  // should_stop end a step between two of its operations. With all_logits, appends the logits of
  // every token processed [n][n_vocab] to it. On failure what was processed stays and the rest
  // stays queued.
  Status run(double budget_ms, std::vector<float>* all_logits, const StopCheck& should_stop = {});

  // As run(), but appends the hidden states of the tokens processed, what the head reads: [n]
  // [d_model], to `hidden`. The head does not run: there are no logits afterwards.
  Status run_with_hidden(double budget_ms, std::vector<float>& hidden,
                         const StopCheck& should_stop = {});

  // One of the sessions of a run_together(), what is kept of every row of it (one of them at most),
  // and how it went.
  struct Run {
    Session* session = nullptr;
    std::vector<float>* logits = nullptr;  // as in run()
    std::vector<float>* hidden = nullptr;  // as in run_with_hidden()
    Status status = {};
  };
  // Runs sessions of one batcher, none twice, in steps that they share, until one of those with
  // queued tokens has none left, all have failed or budget_ms are spent; at least one step. A
  // session that fails takes no part any more.
  static void run_together(std::span<Run> runs, double budget_ms,
                           const StopCheck& should_stop = {});

  // Where drafts come from, from now on; null: there are none, which costs nothing. kMemoryBudget,
  // for the source and the logits of drafts.
  Status set_drafts(std::unique_ptr<DraftSource> source);
  // The token after all that are processed was drawn so, and so will be those to come: drafts are
  // better for it. Changes no result.
  void expect_draws(const SamplerParams& params, uint64_t step);
  // Whether there is a source.
  bool has_drafts() const { return drafts_ != nullptr; }

  // Before others in steps with too little room for all; 0 unless it was set.
  void set_priority(int priority) { seat_.priority = priority; }

  // Keeps the first n_tokens processed tokens, drops the others and the queue. Logits stay only if
  // they are those of the last kept token; to sample again at another one, rewind to one token less
  // and append it again. Past pages that are gone it makes the next run longer (above).
  Status rewind(int n_tokens);

  // How many tokens the session may come to have after rewind(n_tokens): n_ctx(), and as many more
  // as have left the KV before that, within the positions of the model.
  Result<int> most_tokens_after(int n_tokens) const;

  // Takes tokens [n_sink, n_sink + n_drop) of the KV out and turns the keys behind to where they
  // come to stand: from there on as if the text had gone on without them, but for what later tokens
  // have taken from them. Both are multiples of 16, n_sink at least 32: kInvalidArgument.
  // kFeatureUnsupported for learned positions, in a compressed session, and where a layer with a
  // window would have to see what it has let go.
  Status shift(int n_sink, int n_drop);
  // From now on the KV is never full: with n_ctx tokens in it, all but n_sink and at least `window`
  // of the last ones are shifted out. Results do not depend on how run() cut the queue. n_sink: a
  // multiple of 16, at least 32. kInvalidArgument, kFeatureUnsupported.
  Status stream(int n_sink, int window);
  // Leaves n_keep tokens to every kv head, chosen by the attention that the last n_window pay
  // them, for which these are processed once more. Nothing happens where there are no more than
  // n_keep. Tokens must be processed and computed. kInvalidArgument; kFeatureUnsupported for layers
  // with a window, and in a session that shifts; kCancelled and what a step can say, after which
  // the KV is as before but for the last n_window, which n_recompute() counts.
  Status compress(const KvCompression& compression, const StopCheck& should_stop = {});
  // Gives back KV from the end on until the OS has got n_bytes, as far as the next run() can
  // compute it again with the same bits: n_recompute() goes up, nothing else changes. Returns the
  // bytes that the OS got.
  uint64_t trim(uint64_t n_bytes);
  // Whether the KV is not what token_ids() alone would give.
  bool has_dropped_kv() const { return !kept_.is_all(); }
  // Of the tokens processed, those that at least one kv head sees.
  std::vector<TokenRange> kept_ranges() const { return kept_.ranges(n_done_); }
  // Of the tokens processed, those that a kv head does not see.
  int n_dropped() const { return kept_.n_gone(); }

  // [n_vocab] of the last processed token, valid until the next call; kInvalidArgument if there are
  // none: nothing ran yet, or without the head, tokens are pending, or rewind() went back to a
  // token without.
  // Where only the likeliest tokens are known, the token is processed again for them.
  Result<std::span<const float>> logits();

  // Whether the caller samples from the likeliest tokens alone. Steps to come then bring these
  // instead of all logits where the model can: logits() is slow at first, and when it was asked for
  // so, never again.
  void expect_top(bool is_enough) { expects_top_ = is_enough; }
  bool expects_top() const { return expects_top_; }
  // The likeliest tokens behind the last one processed, valid until the next call; null: logits()
  // are known, or there are none.
  const TopTokens* top() const;

  // What was processed, to a file that restore() of a session made alike continues with the same
  // bits; `note` is the caller's. kInvalidArgument while tokens are pending. See session_file.h.
  Status save(const std::string& path, const SessionIdentity& identity, std::string_view note,
              int n_threads);
  // Of a session without tokens: goes on where the saved one stopped. kSessionMismatch unless
  // `identity` is the file's, kContextOverflow, kSessionHash, kSessionInvalid: nothing has changed.
  Status restore(const SessionFile& file, const SessionIdentity& identity, int n_threads);

  // Another adapter from now on, or none, and its key: all tokens go, processed or not, since their
  // keys and values are the other one's.
  Status set_adapter(const Adapter* adapter, std::string_view key = {});

  // Setting it makes the current run(), or else the next one, fail with kCancelled once. From any
  // thread; shared so that a canceller need not know whether the session still exists.
  std::shared_ptr<std::atomic<bool>> cancel_flag() const { return is_cancelled_; }

 private:
  class Part;  // of a step

  Session(Batcher& batcher, std::unique_ptr<KvSequence> kv)
      : batcher_(batcher), kv_(std::move(kv)) {}
  // Before a run: kInvalidArgument, kFeatureUnsupported.
  Status check_run(double budget_ms, bool wants_hidden) const;
  void adopt_known(const Run& run);
  Status run_alone(Run run, double budget_ms, const StopCheck& should_stop);
  int n_computed() const { return kv_->n_tokens() + kept_.n_gone(); }
  bool is_streaming() const { return n_stream_drop_ > 0; }
  Status check_rewind(int n_tokens) const;
  bool keeps_kv_at(int n_tokens) const;
  RowInput row_at(int slot) const;
  Status check_room(size_t n_more) const;
  int most_rows() const;
  Status make_room();
  void drop_kv();
  Status process_again(int n_tokens, float* shares, const StopCheck& should_stop);
  StepModel& model() const { return batcher_.model(); }
  int n_left() const { return n_recompute() + n_pending(); }
  Status stopped() const;  // kCancelled
  void record(int n_rows, double step_ms);
  void count_tokens(int n_rows);
  std::span<const float> last_logits() const;
  bool brings_tops() const { return expects_top_ && !needs_logits_ && model().has_top(); }
  Status bring_logits();

  // Drafts, in session_drafts.cc; nothing happens without a source of them.
  Status take_drafted();
  Status begin_run(const Run& run);
  std::optional<ComingDraws> coming_draws() const;
  void draft();
  void begin_draft_step();
  void forget_rows();
  size_t n_known() const;
  RowInput draft_row(int i) const;
  void keep_drafted(int n_drafts, int n_other_rows, double step_ms);
  void drop_drafts() { ahead_.clear(); }
  void tell_source();
  size_t n_without_hidden(size_t n_known) const;
  std::vector<float> hidden_before(size_t first, size_t end) const;
  void end_drafts();
  int most_drafts() const;
  bool meets_other_format(int n_drafts) const;

  Batcher& batcher_;
  BatchSeat seat_;
  std::unique_ptr<KvSequence> kv_;
  const Adapter* adapter_ = nullptr;
  std::vector<int32_t> tokens_;  // processed, then queued
  int n_done_ = 0;               // tokens processed, of which n_computed() have been in the KV
  KeptTokens kept_;              // of the n_computed() ones
  int n_stream_sink_ = 0;
  int n_stream_drop_ = 0;        // slots that go when the KV is full; 0: it is not shifted
  std::vector<float> logits_;    // [n_vocab] of each row of the last step that they were wanted of
  std::vector<TopTokens> tops_;  // instead of logits_
  bool has_tops_ = false;        // the last step brought them
  bool expects_top_ = false;
  bool needs_logits_ = false;  // had to be brought after such a step
  int logits_row_ = 0;         // which of them are those of token logits_at_ - 1
  int logits_at_ = -1;         // n_tokens() they belong to; -1: none
  bool is_decoding_ = false;   // the queue is one token that was appended to an empty queue
  SessionStats stats_;
  std::unique_ptr<DraftSource> drafts_;  // null: none
  Lookahead ahead_;
  SamplerParams drawn_;              // as tokens are; temperature 0: or it is not known
  uint64_t first_draw_ = 0;          // step of token 0, were it drawn; it may wrap around
  uint64_t draft_bytes_ = 0;         // claimed for them
  bool is_drafting_ = false;         // drafts_ does not rest
  DraftSource::Step last_step_;      // until drafts_ knows of it
  double drafting_ms_ = 0;           // before the step to come
  int n_other_rows_ = 0;             // of the last step
  std::vector<int32_t> row_tokens_;  // of the last step's rows, until drafts_ is told of them
  bool hears_hidden_ = false;        // the step to come keeps hidden states
  std::vector<float> hidden_;        // [d_model] of each row of the last step
  std::vector<int> hidden_rows_;     // which of them are those of tokens first_heard_ and behind
  int first_heard_ = 0;
  size_t n_told_ = 0;   // of tokens_, those that drafts_ observed
  size_t n_heard_ = 0;  // and those that it was shown at the beginning of a step
  std::shared_ptr<std::atomic<bool>> is_cancelled_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace edge
