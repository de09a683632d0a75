// Pages of a mapped file that are in memory and need not be.
#pragma once

#include <cstddef>
#include <span>

namespace edge {

// Of a read-only mapping of a file (anything else would be lost): the whole pages in the range no
// longer count as this process's memory. What is read of them again comes from the file.
void drop_mapped_pages(std::span<const std::byte> mapped);

}  // namespace edge
