#include "backends/cpu/attention_driver.h"

#include <algorithm>

namespace edge {

namespace {

constexpr int kMinUnitsPerThread = 4;
constexpr int kWaveSegments = 64;  // summed before they are merged; bounds the memory

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int n_segments_of(int n_positions) { return (n_positions + kSegmentTokens - 1) / kSegmentTokens; }

}  // namespace

AttentionDriver::AttentionDriver(const AttentionKernels& kernels, int n_threads)
    : kernels_(kernels), n_threads_(n_threads) {}

int AttentionDriver::Group::n_positions() const {
  return *std::max_element(n_visible, n_visible + n_queries);
}

void AttentionDriver::run(std::span<const RowInput> rows, float* q, const AttentionShape& shape,
                          const KvLayerLayout& kv, std::span<const ReadAhead> expected) {
  shape_ = shape;
  expected_ = expected;
  kv_ = kv;
  partial_floats_ = round_up(2 + shape.head_dim, kTileRows);
  make_groups(rows, q, shape);
  int n_segments = 0;
  for (const Group& group : groups_) {
    n_segments = std::max(n_segments, n_segments_of(group.n_positions()));
  }
  const auto n_groups = static_cast<int64_t>(groups_.size());
  if (n_segments > 1 && n_threads_ > 1 && n_groups < int64_t{kMinUnitsPerThread} * n_threads_) {
    run_split(n_segments);
    return;
  }
  // Per thread: the sums so far and those of one segment.
  sums_.resize(std::max(sums_.size(), static_cast<size_t>(2 * n_threads_ * group_floats())));
  const auto run_group = [&](int64_t unit, int thread) {
    run_whole(groups_[static_cast<size_t>(unit)], sums_.data() + 2 * thread * group_floats());
  };
  parallel_for(n_threads_, n_groups, run_group, expected_);
}

void AttentionDriver::make_groups(std::span<const RowInput> rows, float* q,
                                  const AttentionShape& shape) {
  const int heads_per_kv = shape.n_heads / shape.n_kv_heads;
  const int64_t q_stride = round_up(int64_t{shape.n_heads} * shape.head_dim, kTileRows);
  groups_.clear();
  for (int kv_head = 0; kv_head < shape.n_kv_heads; ++kv_head) {
    Group group;
    for (size_t row = 0; row < rows.size(); ++row) {
      for (int head = 0; head < heads_per_kv; ++head) {
        const bool is_other = group.n_queries > 0 && group.pages != rows[row].kv.pages;
        if (is_other || group.n_queries == kMaxQueries) {
          groups_.push_back(group);
          group = {};
        }
        group.kv_head = kv_head;
        group.pages = rows[row].kv.pages;
        group.q[group.n_queries] = q + static_cast<int64_t>(row) * q_stride +
                                   (kv_head * heads_per_kv + head) * int64_t{shape.head_dim};
        group.n_visible[group.n_queries++] = rows[row].position + 1;
      }
    }
    if (group.n_queries > 0) groups_.push_back(group);
  }
}

void AttentionDriver::run_whole(const Group& group, float* scratch) {
  float* next = scratch + group_floats();
  const int n_segments = n_segments_of(group.n_positions());
  attend(group, 0, scratch);
  for (int segment = 1; segment < n_segments; ++segment) {
    attend(group, segment, next);
    merge(group, segment, scratch, next);
  }
  finish(group, scratch);
}

// Waves of segments: all groups' segments in parallel, then each group merges its own in order.
void AttentionDriver::run_split(int n_segments) {
  const auto n_groups = static_cast<int64_t>(groups_.size());
  const int n_wave = std::min(n_segments, kWaveSegments);
  const int64_t group_stride = (1 + n_wave) * group_floats();  // the sums so far, then the wave's
  sums_.resize(std::max(sums_.size(), static_cast<size_t>(n_groups * group_stride)));
  for (int first = 0; first < n_segments; first += n_wave) {
    const int n = std::min(n_wave, n_segments - first);
    parallel_for(n_threads_, n_groups * n, [&](int64_t unit, int) {
      const Group& group = groups_[static_cast<size_t>(unit / n)];
      const int64_t at = unit % n;
      if ((first + at) * kSegmentTokens >= group.n_positions()) return;
      float* sums = sums_.data() + unit / n * group_stride;
      const bool is_first = first + at == 0;
      attend(group, first + static_cast<int>(at),
             is_first ? sums : sums + (1 + at) * group_floats());
    });
    const auto merge_group = [&](int64_t unit, int) {
      const Group& group = groups_[static_cast<size_t>(unit)];
      float* sums = sums_.data() + unit * group_stride;
      for (int at = first == 0 ? 1 : 0; at < n; ++at) {
        merge(group, first + at, sums, sums + (1 + at) * group_floats());
      }
      if (first + n == n_segments) finish(group, sums);
    };
    parallel_for(n_threads_, n_groups, merge_group, expected_);
  }
}

void AttentionDriver::attend(const Group& group, int segment, float* partials) {
  const int first = segment * kSegmentTokens;
  AttentionSegmentArgs args;
  args.pages = reinterpret_cast<const uint8_t* const*>(group.pages + first / kPageTokens);
  args.key_offset = kv_.key_offset(group.kv_head);
  args.value_offset = kv_.value_offset(group.kv_head);
  args.head_dim = shape_.head_dim;
  args.scale = shape_.scale;
  int who[kMaxQueries];
  for (int i = 0; i < group.n_queries; ++i) {
    if (group.n_visible[i] <= first) continue;
    const int at = args.n_queries++;
    who[at] = i;
    args.q[at] = group.q[i];
    args.n_visible[at] = std::min(kSegmentTokens, group.n_visible[i] - first);
    args.o[at] = partial(partials, i).o();
  }
  kernels_.segment(args);
  for (int at = 0; at < args.n_queries; ++at) {
    const Partial out = partial(partials, who[at]);
    out.m() = args.m[at];
    out.l() = args.l[at];
  }
}

void AttentionDriver::merge(const Group& group, int segment, float* sums, float* next) {
  for (int i = 0; i < group.n_queries; ++i) {
    if (group.n_visible[i] <= segment * kSegmentTokens) continue;
    const Partial sum = partial(sums, i), more = partial(next, i);
    kernels_.merge(&sum.m(), &sum.l(), sum.o(), more.m(), more.l(), more.o(), shape_.head_dim);
  }
}

void AttentionDriver::finish(const Group& group, float* sums) {
  for (int i = 0; i < group.n_queries; ++i) {
    const Partial sum = partial(sums, i);
    kernels_.finish(sum.o(), sum.l(), shape_.head_dim, group.q[i]);
  }
}

}  // namespace edge
