#include "backends/cpu/attention_driver.h"

#include <algorithm>
#include <cstring>

#include "kernels/kv_slot.h"

namespace edge {

namespace {

constexpr int kMinUnitsPerThread = 4;
constexpr int kWaveSegments = 64;  // summed before they are merged; bounds the memory
constexpr size_t kTailPages = (kMostTail - 1 + kPageTokens - 1) / kPageTokens + 1;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

AttentionDriver::AttentionDriver(const AttentionKernels& kernels, int n_threads)
    : kernels_(kernels), n_threads_(n_threads) {}

int AttentionDriver::segment_of(int position) const {
  if (!kv_.has_own_first_pages()) return position / kSegmentTokens;
  return position < kFirstTokens ? 0 : 1 + position / kSegmentTokens;
}

AttentionDriver::Segment AttentionDriver::segment_at(int number) const {
  if (!kv_.has_own_first_pages()) {
    return {number * kSegmentTokens, (number + 1) * kSegmentTokens};
  }
  if (number == 0) return {0, kFirstTokens};
  return {std::max(kFirstTokens, (number - 1) * kSegmentTokens), number * kSegmentTokens};
}

int AttentionDriver::first_segment(const Group& group) const {
  return segment_of(*std::min_element(group.first, group.first + group.n_queries));
}

int AttentionDriver::end_segment(const Group& group) const {
  const int* n_visible = group.n_visible;
  return segment_of(*std::max_element(n_visible, n_visible + group.n_queries) - 1) + 1;
}

bool AttentionDriver::run(std::span<const RowInput> rows, float* q, const AttentionShape& shape,
                          const KvLayerLayout& kv, std::span<const ReadAhead> expected) {
  shape_ = shape;
  expected_ = expected;
  kv_ = kv;
  partial_floats_ = round_up(2 + shape.head_dim, kTileRows);
  make_groups(rows, q, shape);
  if (groups_.empty()) return true;
  is_finite_.store(true, std::memory_order_relaxed);
  if (kv.format != KvFormat::kF16) place_int8_queries();
  place_tails();
  int n_segments = 0;
  int first = first_segment(groups_.front());
  for (const Group& group : groups_) {
    n_segments = std::max(n_segments, end_segment(group));
    first = std::min(first, first_segment(group));
  }
  const auto n_groups = static_cast<int64_t>(groups_.size());
  if (n_segments - first > 1 && n_threads_ > 1 &&
      n_groups < int64_t{kMinUnitsPerThread} * n_threads_) {
    for (const Group& group : groups_) prepare(group);
    run_split(first, n_segments);
    return is_finite_.load(std::memory_order_relaxed);
  }
  // Per thread: the sums so far and those of one segment.
  sums_.resize(std::max(sums_.size(), static_cast<size_t>(2 * n_threads_ * group_floats())));
  const auto run_group = [&](int64_t unit, int thread) {
    const Group& group = groups_[static_cast<size_t>(unit)];
    prepare(group);
    run_whole(group, sums_.data() + 2 * thread * group_floats());
  };
  parallel_for(n_threads_, n_groups, run_group, expected_);
  return is_finite_.load(std::memory_order_relaxed);
}

void AttentionDriver::make_groups(std::span<const RowInput> rows, float* q,
                                  const AttentionShape& shape) {
  const int heads_per_kv = shape.n_heads / shape.n_kv_heads;
  const int64_t q_stride = round_up(int64_t{shape.n_heads} * shape.head_dim, kTileRows);
  groups_.clear();
  for (int kv_head = 0; kv_head < shape.n_kv_heads; ++kv_head) {
    Group group;
    for (size_t row = 0; row < rows.size(); ++row) {
      const KvTable& table = rows[row].kv.tables[kv_.group];
      const std::span<const int32_t> tail = rows[row].tail;
      for (int head = 0; head < heads_per_kv; ++head) {
        const bool is_other =
            group.n_queries > 0 && (group.pages != table.pages || group.tail.data() != tail.data());
        if (is_other || group.n_queries == kMaxQueries) {
          groups_.push_back(group);
          group = {};
        }
        group.kv_head = kv_head;
        group.pages = table.pages;
        group.n_pages = table.n_pages;
        group.tail = tail;
        group.q[group.n_queries] = q + static_cast<int64_t>(row) * q_stride +
                                   (kv_head * heads_per_kv + head) * int64_t{shape.head_dim};
        const int n_visible = rows[row].n_seen();
        group.first[group.n_queries] = shape.window > 0 ? std::max(0, n_visible - shape.window) : 0;
        group.n_visible[group.n_queries++] = n_visible;
      }
    }
    if (group.n_queries > 0) groups_.push_back(group);
  }
}

void AttentionDriver::place_int8_queries() {
  const auto n_bytes = static_cast<size_t>(round_up(shape_.head_dim, 64));  // a line each
  const auto n_scales = static_cast<size_t>(kv_n_scales(shape_.head_dim, 8));
  const size_t n_queries = groups_.size() * kMaxQueries;
  q8_.resize(std::max(q8_.size(), n_queries * n_bytes));
  q8_scales_.resize(std::max(q8_scales_.size(), n_queries * n_scales));
  q8_sums_.resize(std::max(q8_sums_.size(), n_queries * n_scales));
  size_t at = 0;
  for (Group& group : groups_) {
    for (QueryInt8& q8 : group.q8) {
      q8 = {q8_.data() + at * n_bytes, q8_scales_.data() + at * n_scales,
            q8_sums_.data() + at * n_scales};
      ++at;
    }
  }
}

void AttentionDriver::quantize_queries(const Group& group) {
  if (kv_.format == KvFormat::kF16) return;
  for (int i = 0; i < group.n_queries; ++i) {
    const bool is_finite = kernels_.quantize_query(group.q[i], shape_.head_dim,
                                                   kv_query_channels(shape_.head_dim), group.q8[i]);
    if (!is_finite) is_finite_.store(false, std::memory_order_relaxed);
  }
}

void AttentionDriver::place_tails() {
  const auto has_tail = [](const Group& group) { return !group.tail.empty(); };
  const auto n_groups = static_cast<size_t>(std::ranges::count_if(groups_, has_tail));
  if (n_groups == 0) return;
  const size_t most_bytes = std::max(kv_head_bytes(kv_.format_of(0), kv_.head_dim),
                                     kv_head_bytes(kv_.format, kv_.head_dim));
  ordered_bytes_ = static_cast<size_t>(round_up(static_cast<int64_t>(most_bytes), 64));  // lines
  ordered_.resize(std::max(ordered_.size(), n_groups * kTailPages * ordered_bytes_));
  uint8_t* room = ordered_.data();
  for (Group& group : groups_) {
    if (!has_tail(group)) continue;
    group.ordered = room;
    room += kTailPages * ordered_bytes_;
  }
}

void AttentionDriver::prepare(const Group& group) {
  quantize_queries(group);
  if (!group.tail.empty()) order_tail(group);
}

// The copies stand where page_of() says, so that the offsets of the page are good for them.
void AttentionDriver::order_tail(const Group& group) const {
  const int first = group.tail.front();
  const int end = first + static_cast<int>(group.tail.size());
  for (int number = first / kPageTokens; number * kPageTokens < end; ++number) {
    const KvHead head = kv_.head(number, group.kv_head);
    const auto* page = reinterpret_cast<const uint8_t*>(group.pages[number]);
    std::memcpy(const_cast<uint8_t*>(page_of(group, number)) + head.begin, page + head.begin,
                head.n_bytes);
  }
  const auto slot_in = [&](const uint8_t* page, int slot) {
    return kv_.slot(reinterpret_cast<std::byte*>(const_cast<uint8_t*>(page)), slot, group.kv_head);
  };
  for (int place = first + 1; place < end; ++place) {
    const int slot = group.tail[static_cast<size_t>(place - first)];
    if (slot == place) continue;
    const auto* from = reinterpret_cast<const uint8_t*>(group.pages[slot / kPageTokens]);
    move_slot(slot_in(from, slot), slot_in(page_of(group, place / kPageTokens), place));
  }
}

// Of the tail only the head's part is there: the rest of the page before it is never read.
const uint8_t* AttentionDriver::page_of(const Group& group, int number) const {
  const auto* page = reinterpret_cast<const uint8_t*>(group.pages[number]);
  if (group.tail.empty()) return page;
  const int at = number - group.tail.front() / kPageTokens;
  const int last = group.tail.front() + static_cast<int>(group.tail.size()) - 1;
  if (at < 0 || number > last / kPageTokens) return page;
  const auto room = reinterpret_cast<uintptr_t>(group.ordered);
  const size_t offset = static_cast<size_t>(at) * ordered_bytes_;
  return reinterpret_cast<const uint8_t*>(room + offset - kv_.head(number, group.kv_head).begin);
}

void AttentionDriver::run_whole(const Group& group, float* scratch) {
  float* next = scratch + group_floats();
  const int first = first_segment(group), end = end_segment(group);
  attend(group, first, scratch);
  for (int segment = first + 1; segment < end; ++segment) {
    attend(group, segment, next);
    merge(group, segment, scratch, next);
  }
  finish(group, scratch);
}

// Waves of segments: all groups' segments in parallel, then each group merges its own in order.
void AttentionDriver::run_split(int first_segment, int n_segments) {
  const auto n_groups = static_cast<int64_t>(groups_.size());
  const int n_wave = std::min(n_segments - first_segment, kWaveSegments);
  const int64_t group_stride = (1 + n_wave) * group_floats();  // the sums so far, then the wave's
  sums_.resize(std::max(sums_.size(), static_cast<size_t>(n_groups * group_stride)));
  for (int first = first_segment; first < n_segments; first += n_wave) {
    const int n = std::min(n_wave, n_segments - first);
    parallel_for(n_threads_, n_groups * n, [&](int64_t unit, int) {
      const Group& group = groups_[static_cast<size_t>(unit / n)];
      const int64_t at = unit % n;
      float* sums = sums_.data() + unit / n * group_stride;
      attend(group, first + static_cast<int>(at), sums + (1 + at) * group_floats());
    });
    const auto merge_group = [&](int64_t unit, int) {
      const Group& group = groups_[static_cast<size_t>(unit)];
      float* sums = sums_.data() + unit * group_stride;
      for (int at = 0; at < n; ++at) {
        merge(group, first + at, sums, sums + (1 + at) * group_floats());
      }
      if (first + n == n_segments) finish(group, sums);
    };
    parallel_for(n_threads_, n_groups, merge_group, expected_);
  }
}

void AttentionDriver::attend(const Group& group, int number, float* partials) {
  const Segment segment = segment_at(number);
  bool is_done[kMaxQueries] = {};
  for (int i = 0; i < group.n_queries; ++i) {
    if (is_done[i] || !segment.is_seen(group, i)) continue;
    const int first = std::max(segment.begin, group.first[i]);
    AttentionSegmentArgs args = args_of(group, segment);
    const uint8_t* pages[kSegmentPages];
    if (!group.tail.empty()) order_pages(group, segment, pages, args);
    args.first = first - segment.origin();
    int who[kMaxQueries];
    for (int other = i; other < group.n_queries; ++other) {
      if (!segment.is_seen(group, other)) continue;
      if (std::max(segment.begin, group.first[other]) != first) continue;
      is_done[other] = true;
      const int at = args.n_queries++;
      who[at] = other;
      args.q[at] = group.q[other];
      args.q8[at] = group.q8[other];
      args.n_visible[at] = std::min(segment.end, group.n_visible[other]) - segment.origin();
      args.o[at] = partial(partials, other).o();
    }
    kernels_.segment(args);
    for (int at = 0; at < args.n_queries; ++at) {
      const Partial out = partial(partials, who[at]);
      out.m() = args.m[at];
      out.l() = args.l[at];
    }
  }
}

AttentionSegmentArgs AttentionDriver::args_of(const Group& group, const Segment& segment) const {
  AttentionSegmentArgs args;
  args.pages =
      reinterpret_cast<const uint8_t* const*>(group.pages + segment.origin() / kPageTokens);
  args.kv = kv_.head(segment.begin / kPageTokens, group.kv_head);
  args.scale = shape_.scale;
  args.softcap = shape_.softcap;
  return args;
}

void AttentionDriver::order_pages(const Group& group, const Segment& segment,
                                  const uint8_t* (&pages)[kSegmentPages],
                                  AttentionSegmentArgs& args) const {
  const int first = segment.origin() / kPageTokens;
  const int n = std::min(kSegmentPages, group.n_pages - first);
  for (int i = 0; i < n; ++i) pages[i] = page_of(group, first + i);
  // Kernels read pages by twos, and nothing of what lies beyond the last one.
  std::fill(pages + n, pages + kSegmentPages, pages[n - 1]);
  args.pages = pages;
}

void AttentionDriver::merge(const Group& group, int number, float* sums, float* next) {
  const Segment segment = segment_at(number);
  for (int i = 0; i < group.n_queries; ++i) {
    if (!segment.is_seen(group, i)) continue;
    const Partial sum = partial(sums, i), more = partial(next, i);
    if (number == segment_of(group.first[i])) {  // there is nothing to merge with
      std::copy_n(more.at, 2 + shape_.head_dim, sum.at);
    } else {
      kernels_.merge(&sum.m(), &sum.l(), sum.o(), more.m(), more.l(), more.o(), shape_.head_dim);
    }
  }
}

void AttentionDriver::finish(const Group& group, float* sums) {
  for (int i = 0; i < group.n_queries; ++i) {
    const Partial sum = partial(sums, i);
    kernels_.finish(sum.o(), sum.l(), shape_.head_dim, group.q[i]);
  }
}

}  // namespace edge
