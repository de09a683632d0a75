#include "runtime/kv_disk.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/temporary_name.h"
#include "base/xxh64.h"

namespace edge {
namespace {

constexpr char kMagic[] = {'e', 'd', 'g', 'e', 'p', 'a', 'g', 'e'};
constexpr uint32_t kVersion = 1;
constexpr std::string_view kSuffix = ".kv";
constexpr uint64_t kLooks = 16;  // at the directory while the budget is written once

std::string file_name(const KvDisk::Name& name) { return to_hex(name).append(kSuffix); }

// The file that `name` is or is being written to; empty if it is none of ours.
std::string_view file_of(std::string_view name) {
  constexpr size_t kDigits = 2 * sizeof(KvDisk::Name);
  const std::string_view file = name.substr(0, kDigits + kSuffix.size());
  const bool is_ours = file.size() == kDigits + kSuffix.size() && file.ends_with(kSuffix) &&
                       file.find_first_not_of("0123456789abcdef") == kDigits;
  return is_ours ? file : std::string_view();
}

constexpr uint64_t header_bytes(size_t n_ids, size_t n_pages) {
  return sizeof kMagic + 8 + sizeof(KvDisk::Name) + n_ids * sizeof(int32_t) + n_pages * 8;
}

// All of a file but its pages: magic, version, number of pages, name, ids, XXH64 of every page.
std::vector<std::byte> header_of(const KvDisk::Name& name, std::span<const int32_t> ids,
                                 KvDisk::Pages<const std::byte> pages) {
  std::vector<std::byte> header;
  const auto add = [&](std::span<const std::byte> bytes) {
    header.insert(header.end(), bytes.begin(), bytes.end());
  };
  const uint32_t counts[] = {kVersion, static_cast<uint32_t>(pages.size())};
  add(std::as_bytes(std::span(kMagic)));
  add(std::as_bytes(std::span(counts)));
  add(name);
  add(std::as_bytes(ids));
  for (const std::span<const std::byte> page : pages) {
    const uint64_t sum = xxh64(page);
    add(std::as_bytes(std::span(&sum, 1)));
  }
  return header;
}

uint64_t file_bytes(std::span<const KvGroup> groups) {
  uint64_t n_bytes = header_bytes(kPageTokens, groups.size());
  for (const KvGroup& group : groups) n_bytes += std::max(group.page_bytes, group.bytes_of(0));
  return n_bytes;
}

}  // namespace

KvDisk::KvDisk(PrivateDirectory directory, Options options)
    : directory_(std::move(directory)),
      budget_bytes_(options.budget_bytes),
      identity_(sha256(std::as_bytes(std::span(options.identity)))),
      may_write_(std::move(options.may_write)) {
  look(0);
}

Result<std::unique_ptr<KvDisk>> KvDisk::open(Options options, std::span<const KvGroup> groups) {
  const uint64_t n_least = 2 * file_bytes(groups);
  if (options.budget_bytes < n_least) {
    return {Code::kInvalidArgument,
            "kv_cache_disk_bytes is " + std::to_string(options.budget_bytes) +
                "; for this model it must be at least " + std::to_string(n_least)};
  }
  EDGE_ASSIGN_OR_RETURN(PrivateDirectory opened, PrivateDirectory::open(options.directory));
  return std::unique_ptr<KvDisk>(new KvDisk(std::move(opened), std::move(options)));
}

KvDisk::Name KvDisk::beginning(std::string_view key) const {
  Sha256 hash;
  hash.update(identity_);
  hash.update(std::as_bytes(std::span(key)));
  return hash.finish();
}

KvDisk::Name KvDisk::after(const Name& before, std::span<const int32_t> ids) {
  Sha256 hash;
  hash.update(before);
  hash.update(std::as_bytes(ids));
  return hash.finish();
}

void KvDisk::write(const Name& name, std::span<const int32_t> ids, Pages<const std::byte> pages) {
  if (directory_.touch(file_name(name))) return;
  const bool is_written = may_write() && write_new(name, ids, pages);
  const std::lock_guard lock(mutex_);
  figures_.n_written_tokens += is_written ? static_cast<int64_t>(ids.size()) : 0;
  figures_.n_failed_writes += is_written ? 0 : 1;
}

bool KvDisk::may_write() {
  const std::lock_guard lock(mutex_);
  return may_write_ && may_write_();
}

void KvDisk::stop_writing() {
  const std::lock_guard lock(mutex_);
  may_write_ = {};
}

bool KvDisk::write_new(const Name& name, std::span<const int32_t> ids,
                       Pages<const std::byte> pages) {
  const std::vector<std::byte> header = header_of(name, ids, pages);
  std::vector<std::span<const std::byte>> parts{header};
  parts.insert(parts.end(), pages.begin(), pages.end());
  uint64_t n_bytes = 0;
  for (const auto& part : parts) n_bytes += part.size();
  make_room(n_bytes);
  const std::string file = file_name(name);
  return directory_.write(file, parts).is_ok() && directory_.touch(file);
}

bool KvDisk::has(const Name& name) const { return directory_.has(file_name(name)); }

bool KvDisk::read(const Name& name, std::span<const int32_t> ids, Pages<std::byte> pages) {
  const std::string file = file_name(name);
  std::vector<std::byte> header(header_bytes(ids.size(), pages.size()));
  std::vector<std::span<std::byte>> parts{header};
  parts.insert(parts.end(), pages.begin(), pages.end());
  const PrivateDirectory::Found found = directory_.read(file, parts);
  if (found == PrivateDirectory::Found::kNothing) return false;
  const std::vector<std::span<const std::byte>> arrived(pages.begin(), pages.end());
  const bool is_whole =
      found == PrivateDirectory::Found::kFile && header == header_of(name, ids, arrived);
  if (!is_whole) directory_.remove(file);
  const std::lock_guard lock(mutex_);
  figures_.n_read_tokens += is_whole ? static_cast<int64_t>(ids.size()) : 0;
  figures_.n_damaged_files += is_whole ? 0 : 1;
  return is_whole;
}

void KvDisk::touch(const Name& name) const { directory_.touch(file_name(name)); }

// Removes what is too much for so many bytes more, and what was left by processes that died.
void KvDisk::look(uint64_t n_wanted_bytes) {
  std::multimap<int64_t, PrivateDirectory::File> ours;  // by last use
  uint64_t n_bytes = 0;
  for (PrivateDirectory::File& file : directory_.files()) {
    const std::string_view written = file_of(file.name);
    if (written.empty()) continue;
    if (written.size() < file.name.size()) {
      if (is_temporary_of(file.name, written)) directory_.remove_stale(file.name);
      continue;
    }
    n_bytes += file.n_bytes;
    ours.emplace(file.used_ns, std::move(file));
  }
  const uint64_t n_most = budget_bytes_ - std::min(budget_bytes_, n_wanted_bytes);
  for (auto oldest = ours.begin(); oldest != ours.end() && n_bytes > n_most; ++oldest) {
    directory_.remove(oldest->second.name);
    n_bytes -= oldest->second.n_bytes;
  }
  figures_.n_bytes = n_bytes;
  n_bytes_since_look_ = 0;
}

void KvDisk::make_room(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  if (n_bytes_since_look_ + n_bytes > budget_bytes_ / kLooks ||
      figures_.n_bytes + n_bytes > budget_bytes_) {
    look(std::max(n_bytes, budget_bytes_ / kLooks));
  }
  n_bytes_since_look_ += n_bytes;
  figures_.n_bytes += n_bytes;
}

KvDiskFigures KvDisk::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

}  // namespace edge
