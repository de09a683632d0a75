// White space as HF sees it: ranges of code points from the blob.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

class SpaceSet {
 public:
  static Result<SpaceSet> create(const Sections& sections);
  bool contains(uint32_t code_point) const;
  // Begin of the white space that ends at `end`, and end of what begins at `begin`.
  size_t before(std::string_view text, size_t end) const;
  size_t after(std::string_view text, size_t begin) const;

 private:
  TableView<uint32_t> ranges_;  // pairs: first and last code point
};

}  // namespace edge
