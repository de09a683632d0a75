#include "backends/gpu/step_rows.h"

#include <algorithm>

#include "backends/gpu/attention_plan.h"

namespace edge::gpu {
namespace {

constexpr int64_t kPagesUnit = 256;  // 4096 tokens

KvPart part_of(const KvHead& head) {
  KvPart part = {};
  part.head_dim = head.head_dim;
  part.key_bits = head.key_bits;
  part.value_bits = head.value_bits;
  part.key_channels = head.key_channels;
  part.value_channels = head.value_channels;
  part.value_row_bytes = head.value_row_bytes;
  part.n_bytes = head.n_bytes;
  part.keys = head.keys;
  part.values = head.values;
  part.key_scales = head.key_scales;
  part.value_scales = head.value_scales;
  return part;
}

}  // namespace

PagesArgs pages_of(const KvLayerLayout& kv) {
  PagesArgs pages = {};
  pages.has_first = kv.has_own_first_pages();
  for (int i = 0; i < 2; ++i) {
    pages.first[i] = part_of(kv.head(0, i));
    pages.other[i] = part_of(kv.head(kFirstPages, i));
  }
  return pages;
}

void StepRows::begin(Launcher& launcher, std::span<const RowInput> inputs) {
  rows_ = inputs;
  std::vector<Row> rows;
  sequences_.clear();
  for (const RowInput& row : inputs) {
    if (sequences_.empty() || sequences_.back().tables != row.kv.tables) {
      sequences_.push_back(row.kv);
    }
    Row& to = rows.emplace_back();
    to.token = row.token;
    to.position = row.position;
    to.slot = row.slot;
    to.n_seen = row.n_seen();
    to.n_tail = static_cast<int32_t>(row.tail.size());
    to.sequence = static_cast<int32_t>(sequences_.size()) - 1;
    std::copy(row.tail.begin(), row.tail.end(), to.tail);
  }
  device_rows_ = launcher.send(std::span<const Row>(rows));
  groups_.clear();
  row_groups_.clear();
}

Rows StepRows::with_pages(Launcher& launcher, int group) {
  const auto number = static_cast<size_t>(group);
  if (groups_.size() <= number) groups_.resize(number + 1, nullptr);
  if (groups_[number] == nullptr) {
    std::vector<PageTable> tables;
    std::vector<Page> pages;
    for (const KvView& view : sequences_) {
      const KvTable& table = view.tables[number];
      pages.clear();
      for (int i = 0; i < table.n_pages; ++i) {
        pages.push_back({reinterpret_cast<uint8_t*>(launcher.at(table.pages[i]))});
      }
      // Room for more pages than there are, so that what is sent behind them stands where it stood
      // in the step before, and a graph of the step still fits.
      pages.resize(static_cast<size_t>(round_up(table.n_pages, kPagesUnit)));
      tables.push_back({launcher.send(std::span<const Page>(pages))});
    }
    groups_[number] = launcher.send(std::span<const PageTable>(tables));
  }
  return {device_rows_, groups_[number]};
}

StepRows::Groups StepRows::groups(Launcher& launcher, int row0, int n_rows, int most_rows) {
  for (const SentGroups& sent : row_groups_) {
    if (sent.row0 == row0 && sent.n_rows == n_rows && sent.most_rows == most_rows) {
      return sent.groups;
    }
  }
  const std::vector<RowGroup> groups = group_rows(rows_, row0, n_rows, most_rows);
  const Groups sent = {launcher.send(std::span<const RowGroup>(groups)),
                       static_cast<int64_t>(groups.size())};
  row_groups_.push_back({row0, n_rows, most_rows, sent});
  return sent;
}

}  // namespace edge::gpu
