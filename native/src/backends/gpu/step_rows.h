// The rows of a step on the device, and the pages of their sequences.
#pragma once

#include <span>
#include <vector>

#include "backends/gpu/launcher.h"

namespace edge::gpu {

class StepRows {
 public:
  // Sends them; `rows` stay as they are until the step ends.
  void begin(Launcher& launcher, std::span<const RowInput> rows);

  int count() const { return static_cast<int>(rows_.size()); }
  std::span<const RowInput> inputs() const { return rows_; }
  Rows without_pages() const { return {device_rows_, nullptr}; }
  // The page tables of a group go to the device when a step first needs them.
  Rows with_pages(Launcher& launcher, int group);
  // group_rows() of these rows (attention_plan.h), sent when a layer first needs them.
  struct Groups {
    const RowGroup* first;
    int64_t count;
  };
  Groups groups(Launcher& launcher, int row0, int n_rows, int most_rows);

 private:
  struct SentGroups {
    int row0, n_rows, most_rows;
    Groups groups;
  };
  std::span<const RowInput> rows_;
  std::vector<KvView> sequences_;
  const Row* device_rows_ = nullptr;
  std::vector<const PageTable*> groups_;  // by group; null: not sent yet
  std::vector<SentGroups> row_groups_;
};

// How the pages of a layer are laid out.
PagesArgs pages_of(const KvLayerLayout& kv);

}  // namespace edge::gpu
