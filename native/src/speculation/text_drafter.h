// Drafts what followed the longest repeated end of the text: where it went on differently, as
// branches; below each, what shorter ends of it were followed by (as PPM does: Cleary and Witten
// 1984). One drafter searches the sequence itself, the other texts of earlier ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "speculation/acceptance.h"
#include "speculation/drafter.h"
#include "speculation/text_generations.h"

namespace edge {

// Adds candidates below the last committed token, the likeliest first.
void propose_from_text(const TextMatch& found, DrafterKind kind, const Acceptance& acceptance,
                       int max_depth, Candidates& out);

class OwnTextDrafter : public Drafter {
 public:
  OwnTextDrafter(size_t memory_bytes, const Acceptance& acceptance)
      : text_(memory_bytes), acceptance_(acceptance) {}

  DrafterKind kind() const override { return DrafterKind::kSuffix; }
  void propose(const DraftContext& context, Candidates& out) override;
  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t> tokens) override { text_.rewind(tokens); }
  size_t memory_bytes() const override { return text_.memory_bytes(); }

 private:
  OwnText text_;
  const Acceptance& acceptance_;
};

class StoreDrafter : public Drafter {
 public:
  StoreDrafter(const TextStore& store, const Acceptance& acceptance)
      : store_(store), acceptance_(acceptance) {}

  DrafterKind kind() const override { return DrafterKind::kStore; }
  void propose(const DraftContext& context, Candidates& out) override;
  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t> tokens) override;
  size_t memory_bytes() const override { return 0; }  // the store counts as what is shared

 private:
  const TextStore& store_;
  TextStore::Cursor cursor_;
  const Acceptance& acceptance_;
};

}  // namespace edge
