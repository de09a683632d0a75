// Spreads attention over the pool. Queries that share a kv head and a sequence go through a segment
// of 256 positions together. A unit is such a group over its whole context, or, where groups are
// too few for the threads (decoding a long context), one group and one segment. Either way a
// query's segments combine in ascending order, so the bits are the same. Segments before a window
// are left out. First pages in a format of their own are a segment of their own.
//
// A row with a tail (RowInput) meets copies of the pages that the tail's tokens belong to, in which
// these stand in order: so its sums are those of a text without the other branches, and the kernels
// know nothing of trees.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"

namespace edge {

class AttentionDriver {
 public:
  // `kernels` must outlive the driver.
  AttentionDriver(const AttentionKernels& kernels, int n_threads);

  // q: [rows.size()][n_heads * head_dim rounded up to 16], overwritten with softmax(q K^T * scale)
  // V over the slots each row sees: its sequence up to its own, within the window. Keys and
  // values of the rows themselves must be in their pages. expected: as in pool_run(). False, with q
  // unspecified, if a query that meets int8 keys is not finite.
  bool run(std::span<const RowInput> rows, float* q, const AttentionShape& shape,
           const KvLayerLayout& kv, std::span<const ReadAhead> expected = {});

 private:
  // Up to kMaxQueries queries of one sequence and one kv head.
  struct Group {
    int n_queries = 0;
    int kv_head = 0;
    const std::byte* const* pages = nullptr;
    int n_pages = 0;
    std::span<const int32_t> tail;  // of the row that all queries are of; empty: of any rows
    uint8_t* ordered = nullptr;     // room for the head's part of the tail's pages
    float* q[kMaxQueries] = {};
    QueryInt8 q8[kMaxQueries];        // empty where keys are F16
    int first[kMaxQueries] = {};      // position from which a query sees
    int n_visible[kMaxQueries] = {};  // and up to which, exclusive
  };
  // Positions [begin, end), whose sums are made together.
  struct Segment {
    int begin = 0;
    int end = 0;

    bool is_seen(const Group& group, int query) const {
      return group.n_visible[query] > begin && group.first[query] < end;
    }
    // Position 0 of its pages, of which the first may be another segment's.
    int origin() const { return begin / kSegmentTokens * kSegmentTokens; }
  };
  // What one query has summed over one segment or several: [m, l, o[head_dim]].
  struct Partial {
    float* at;
    float& m() const { return at[0]; }
    float& l() const { return at[1]; }
    float* o() const { return at + 2; }
  };

  void make_groups(std::span<const RowInput> rows, float* q, const AttentionShape& shape);
  // Room for the int8 queries of all groups.
  void place_int8_queries();
  void quantize_queries(const Group& group);
  // Room for the ordered pages of all groups with a tail.
  void place_tails();
  // What a group needs before its first segment.
  void prepare(const Group& group);
  void order_tail(const Group& group) const;
  // Page `number` as the group meets it: of the tail, the copy.
  const uint8_t* page_of(const Group& group, int number) const;
  void run_whole(const Group& group, float* scratch);
  void run_split(int first_segment, int n_segments);
  // Puts what the queries sum over a segment to `partials`.
  void attend(const Group& group, int number, float* partials);
  // Of the segment and the kv head, without queries.
  AttentionSegmentArgs args_of(const Group& group, const Segment& segment) const;
  static constexpr int kSegmentPages = kSegmentTokens / kPageTokens;
  void order_pages(const Group& group, const Segment& segment,
                   const uint8_t* (&pages)[kSegmentPages], AttentionSegmentArgs& args) const;
  void merge(const Group& group, int number, float* sums, float* next);
  void finish(const Group& group, float* sums);

  int segment_of(int position) const;
  Segment segment_at(int number) const;
  int first_segment(const Group& group) const;
  int end_segment(const Group& group) const;

  Partial partial(float* base, int query) const { return {base + query * partial_floats_}; }
  int64_t group_floats() const { return int64_t{kMaxQueries} * partial_floats_; }

  const AttentionKernels& kernels_;
  int n_threads_;
  AttentionShape shape_;
  KvLayerLayout kv_;
  std::span<const ReadAhead> expected_;
  int64_t partial_floats_ = 0;
  std::vector<Group> groups_;
  std::vector<float> sums_;  // a thread's or, split, all groups'
  std::vector<int8_t> q8_;
  std::vector<float> q8_scales_;
  std::vector<int32_t> q8_sums_;
  std::vector<uint8_t> ordered_;
  size_t ordered_bytes_ = 0;  // of one page there
  std::atomic<bool> is_finite_{true};
};

}  // namespace edge
