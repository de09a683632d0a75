#include "format/verifier.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <vector>

#include "base/os_thread.h"
#include "base/sha256.h"

namespace edge {

namespace {

constexpr size_t kDigestBytes = 32;
constexpr size_t kStackBytes = 256 << 10;

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::filesystem::path to_path(const std::string& utf8) {
  return {std::u8string(utf8.begin(), utf8.end())};
}

// What a remembered verification stands for; any rewrite of the file changes it.
std::string memory_key(const EdgeFile& file) {
  const FileIdentity& id = file.map().identity();
  return "edgellm verified 1\nroot " + std::string(file.root_hex()) + "\ndevice " +
         std::to_string(id.device) + "\ninode " + std::to_string(id.inode) + "\nsize " +
         std::to_string(id.size_bytes) + "\nmtime_ns " + std::to_string(id.mtime_ns) +
         "\nctime_ns " + std::to_string(id.ctime_ns) + "\n";
}

// Where the key is kept; "" without a cache directory or for bytes that are no file.
std::string memory_path(const EdgeFile& file) {
  const std::string cache = user_cache_dir();
  if (cache.empty() || file.map().bytes().empty()) return "";
  return cache + "/verified/" + to_hex(sha256(as_bytes(memory_key(file))));
}

bool is_remembered(const EdgeFile& file) {
  const std::string path = memory_path(file);
  if (path.empty()) return false;
  const auto stored = MappedFile::open(path);
  const std::string key = memory_key(file);
  return stored.is_ok() && std::ranges::equal(stored.value().bytes(), as_bytes(key));
}

// Best effort: without the memory the next load hashes again.
void remember(const EdgeFile& file) {
  const std::string path = memory_path(file);
  if (path.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(to_path(path).parent_path(), ignored);
  const Status written = atomic_write_file(path, as_bytes(memory_key(file)));
  static_cast<void>(written);
}

// What is wrong with a leaf whose hash does not match.
Status leaf_status(const EdgeFile& file, size_t leaf) {
  const auto hashed = file.hashed_bytes();
  const size_t start = leaf * kLeafBytes;
  const auto bytes = hashed.subspan(start, std::min<size_t>(kLeafBytes, hashed.size() - start));
  std::string first, last;
  for (const TensorEntry& entry : file.tensors()) {
    if (entry.offset >= start + bytes.size()) break;
    if (entry.offset + entry.tensor.n_bytes <= start) continue;
    if (first.empty()) first = entry.name;
    last = entry.name;
  }
  const std::string tensors =
      first == last ? "tensor '" + first + "'" : "one of tensors '" + first + "' to '" + last + "'";
  return {Code::kLeafHash, file.path() + ": damaged in " + tensors + ", in the " +
                               std::to_string(bytes.size()) + " bytes at " +
                               std::to_string(file.data_start() + start) + "; get the file again"};
}

constexpr size_t kMaxLeavesAtOnce = 16;

// Hashes leaves [first, first + n); the first wrong one of them, or first + n.
size_t first_wrong_leaf(const EdgeFile& file, size_t first, size_t n) {
  const auto hashed = file.hashed_bytes();
  const size_t start = first * kLeafBytes;
  const auto bytes = hashed.subspan(start, std::min<size_t>(n * kLeafBytes, hashed.size() - start));
  std::array<std::byte, kMaxLeavesAtOnce * kDigestBytes> digests;
  sha256_leaves(bytes, kLeafBytes, digests);
  for (size_t i = 0; i < n; ++i) {
    const auto want = file.leaf_hashes().subspan((first + i) * kDigestBytes, kDigestBytes);
    if (!std::ranges::equal(std::span(digests).subspan(i * kDigestBytes, kDigestBytes), want)) {
      return first + i;
    }
  }
  return first + n;
}

// The hashes already say that these bytes are the writer's; this says that the writer kept to the
// format, so that no byte of a good file is free to carry something else.
Status check_padding(const EdgeFile& file) {
  const auto& tensors = file.tensors();
  const std::byte* file_end = file.hashed_bytes().data() + (file.file_bytes() - file.data_start());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i].tensor;
    const std::byte* next = i + 1 < tensors.size() ? tensors[i + 1].tensor.data : file_end;
    if (std::any_of(tensor.data + tensor.n_bytes, next,
                    [](std::byte b) { return b != std::byte{}; })) {
      return {Code::kTensorPadding,
              file.path() + ": padding of tensor '" + tensors[i].name + "' is not zero"};
    }
  }
  return {};
}

}  // namespace

struct Verifier::State {
  std::shared_ptr<const EdgeFile> file;
  size_t n_leaves = 0;
  size_t leaves_at_once = 1;          // claimed by a thread: as many as are hashed side by side
  int64_t started_in = process_id();  // the background thread lives in this process only
  std::atomic<size_t> next_leaf{0};
  std::atomic<size_t> n_verified{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::condition_variable ended;
  bool done = true;        // guarded by mutex
  size_t failed_leaf = 0;  // guarded by mutex
  Status status;           // guarded by mutex
  OsThread thread;

  // Claims leaves in order until there are none left, one is wrong or we are told to stop. Leaves
  // before a wrong one are claimed already, so the lowest wrong one is reported at any thread
  // count.
  void hash_leaves() {
    while (!stop.load(std::memory_order_relaxed) && !failed.load(std::memory_order_relaxed)) {
      const size_t first = next_leaf.fetch_add(leaves_at_once, std::memory_order_relaxed);
      if (first >= n_leaves) return;
      const size_t n = std::min(leaves_at_once, n_leaves - first);
      const size_t wrong = first_wrong_leaf(*file, first, n);
      n_verified.fetch_add(wrong - first, std::memory_order_relaxed);
      if (wrong < first + n) fail(leaf_status(*file, wrong), wrong);
    }
  }

  void fail(const Status& why, size_t leaf) {
    const std::lock_guard lock(mutex);
    if (status.is_ok() || leaf < failed_leaf) {
      status = why;
      failed_leaf = leaf;
    }
    failed.store(true, std::memory_order_release);
  }

  // After the last leaf.
  void finish() {
    if (!failed && n_verified == n_leaves) {
      const Status padding = check_padding(*file);
      if (padding.is_ok()) {
        remember(*file);
      } else {
        fail(padding, n_leaves);
      }
    }
    const std::lock_guard lock(mutex);
    done = true;
    ended.notify_all();
  }

  void hash_with(int n_threads) {
    const auto hash = [](void* raw) { static_cast<State*>(raw)->hash_leaves(); };
    std::vector<OsThread> helpers;
    const int64_t n_useful = std::min<int64_t>(n_threads, static_cast<int64_t>(n_leaves));
    for (int64_t i = 1; i < n_useful; ++i) {
      const OsThread helper = start_thread(kStackBytes, hash, this);
      if (!helper.started) break;  // fewer threads give the same answer
      helpers.push_back(helper);
    }
    hash_leaves();
    for (const OsThread helper : helpers) join_thread(helper);
    finish();
  }
};

Verifier::Verifier(std::unique_ptr<State> state) : state_(std::move(state)) {}

Verifier::~Verifier() {
  state_->stop = true;
  // After a fork the thread exists in the parent only.
  if (state_->thread.started && process_id() == state_->started_in) join_thread(state_->thread);
}

Result<std::unique_ptr<Verifier>> Verifier::start(std::shared_ptr<const EdgeFile> file,
                                                  VerifyMode mode, int n_threads) {
  auto owned = std::make_unique<State>();
  State* state = owned.get();
  state->n_leaves = file->leaf_hashes().size() / kDigestBytes;
  state->leaves_at_once = std::min(static_cast<size_t>(sha256_leaves_at_once()), kMaxLeavesAtOnce);
  state->file = std::move(file);
  std::unique_ptr<Verifier> verifier(new Verifier(std::move(owned)));
  if (mode == VerifyMode::kNever) return verifier;
  if (mode == VerifyMode::kAlways) {
    state->hash_with(n_threads);
    EDGE_RETURN_IF_ERROR(verifier->status());
    return verifier;
  }
  if (is_remembered(*state->file)) {
    state->n_verified = state->n_leaves;
    return verifier;
  }
  state->done = false;
  const auto hash_in_background = [](void* raw) {
    lower_thread_priority();
    static_cast<State*>(raw)->hash_leaves();
    static_cast<State*>(raw)->finish();
  };
  state->thread = start_thread(kStackBytes, hash_in_background, state);
  if (!state->thread.started) {
    state->hash_with(1);  // no thread to be had: now, rather than not at all
    EDGE_RETURN_IF_ERROR(verifier->status());
  }
  return verifier;
}

double Verifier::verified_fraction() const {
  return static_cast<double>(state_->n_verified.load()) / static_cast<double>(state_->n_leaves);
}

Status Verifier::status() const {
  if (!state_->failed.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(state_->mutex);
  return state_->status;
}

Status Verifier::wait() {
  if (process_id() != state_->started_in && state_->n_verified < state_->n_leaves) {
    return {Code::kOsFailure, state_->file->path() + ": verification did not survive the fork"};
  }
  std::unique_lock lock(state_->mutex);
  state_->ended.wait(lock, [&] { return state_->done; });
  return state_->status;
}

}  // namespace edge
