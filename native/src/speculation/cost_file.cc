#include "speculation/cost_file.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "base/private_directory.h"
#include "base/xxh64.h"

namespace edge {

namespace {

// Of every file, whatever its text: filled up with zeros.
constexpr size_t kFileBytes = 1024;
using FileBytes = std::array<char, kFileBytes>;

std::string file_name(std::string_view key) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const uint64_t hash = xxh64(std::as_bytes(std::span(key)));
  std::string name = "costs-";
  for (int shift = 60; shift >= 0; shift -= 4) name += kDigits[hash >> shift & 15];
  return name;
}

}  // namespace

std::optional<CostTable> load_costs(const std::string& directory, std::string_view key,
                                    CostShape shape) {
  const auto opened = PrivateDirectory::open(directory);
  if (!opened.is_ok()) return std::nullopt;
  FileBytes bytes{};
  const std::span<std::byte> parts[] = {std::as_writable_bytes(std::span(bytes))};
  if (opened.value().read(file_name(key), parts) != PrivateDirectory::Found::kFile) {
    return std::nullopt;
  }
  const auto end = std::find(bytes.begin(), bytes.end(), '\0');
  if (std::any_of(end, bytes.end(), [](char c) { return c != '\0'; })) return std::nullopt;
  return CostTable::from_text({bytes.data(), static_cast<size_t>(end - bytes.begin())}, shape);
}

void save_costs(const std::string& directory, std::string_view key, const CostTable& costs) {
  const std::string text = costs.to_text();
  auto opened = PrivateDirectory::open(directory);
  if (!opened.is_ok() || text.size() > kFileBytes) return;
  FileBytes bytes{};
  std::copy(text.begin(), text.end(), bytes.begin());
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(bytes))};
  // Best effort: the next process measures again.
  (void)opened.value().write(file_name(key), parts);
}

}  // namespace edge
