// Fuzz target of the readers, in libFuzzer's form. Three views of the same input: a JSON document,
// a whole file, and a header that is given a right length and hash so that the rules behind them
// are reached.
#include <cstdint>
#include <cstring>
#include <string_view>

#include "format/json.h"
#include "mutations.h"
#include "open_all.h"

namespace edge::fuzz {

int fuzz_one(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(Json::parse(text).is_ok());
  constexpr size_t kMaxBytes = 1 << 20;
  if (size > kMaxBytes) return 0;
  auto buffer = PageBuffer::allocate(2 * kMaxBytes);
  if (!buffer.is_ok()) return 0;
  std::byte* bytes = buffer.value().data();
  std::memcpy(bytes, data, size);
  static_cast<void>(open_all({bytes, size}).is_ok());
  const std::string sealed = seal(std::string(text), round_up_to_page(8 + size));
  std::memcpy(bytes, sealed.data(), sealed.size());
  static_cast<void>(open_all({bytes, sealed.size()}).is_ok());
  return 0;
}

}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return edge::fuzz::fuzz_one(data, size);
}
