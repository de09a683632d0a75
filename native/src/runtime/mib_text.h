// Bytes for people: "12.3 MiB".
#pragma once

#include <cstdint>
#include <string>

namespace edge {

inline std::string mib_text(uint64_t n_bytes) {
  const uint64_t whole = n_bytes >> 20;
  const uint64_t tenths = (n_bytes & ((1u << 20) - 1)) * 10 >> 20;
  return std::to_string(whole) + "." + std::to_string(tenths) + " MiB";
}

}  // namespace edge
