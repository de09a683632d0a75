#include "base/page_drop.h"

namespace edge {

// Windows trims the working set by itself.
void drop_mapped_pages(std::span<const std::byte>) {}

}  // namespace edge
