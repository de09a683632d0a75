#include "tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <functional>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

// Up to here a scan for the lowest rank beats a heap.
constexpr size_t kShortSymbols = 40;

}  // namespace

Status Bpe::init(const Sections& sections) {
  EDGE_ASSIGN_OR_RETURN(merges_,
                        MergeTable::create(sections, header_.n_vocab, header_.merge_probes));
  for (size_t i = 0; i < 128; ++i) {
    const char c = static_cast<char>(i);
    ascii_ids_[i] = vocab_.find({&c, 1});
  }
  return Status::ok();
}

void Bpe::encode(std::string_view piece, PieceScratch& scratch, std::vector<int32_t>& out) const {
  if (piece.empty()) return;
  const uint32_t whole = vocab_.find(piece);
  if (whole != kNoId && (vocab_.flags(whole) & kTokenWhole) != 0) {
    out.push_back(static_cast<int32_t>(whole));
    return;
  }
  scratch.ids.clear();
  if (header_.byte_alphabet) {
    add_byte_symbols(piece, scratch.ids);
  } else {
    add_character_symbols(piece, scratch.ids);
  }
  if (header_.n_merges != 0 && scratch.ids.size() > 1) {
    if (scratch.ids.size() <= kShortSymbols) {
      merge_short(scratch.ids);
    } else {
      merge_long(scratch);
    }
  }
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
}

void Bpe::add_byte_symbols(std::string_view piece, std::vector<uint32_t>& ids) const {
  bool pending_unk = false;
  for (const char c : piece) {
    const uint32_t id = byte_ids_[static_cast<uint8_t>(c)];
    if (id != kNoId) {
      if (pending_unk) ids.push_back(header_.unk_id);
      pending_unk = false;
      ids.push_back(id);
    } else if (header_.unk_id != kNoId) {
      if (pending_unk && !header_.fuse_unk) ids.push_back(header_.unk_id);
      pending_unk = true;
    }
  }
  if (pending_unk) ids.push_back(header_.unk_id);
}

bool Bpe::add_fallback_bytes(std::string_view character, std::vector<uint32_t>& ids) const {
  if (!has_fallback_bytes(character)) return false;
  for (const char c : character) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
  return true;
}

void Bpe::add_character_symbols(std::string_view piece, std::vector<uint32_t>& ids) const {
  // HF holds an unk back until the next known character: byte-fallback ids overtake it.
  bool pending_unk = false;
  for (size_t offset = 0; offset < piece.size();) {
    const size_t begin = offset;
    const uint32_t code_point = utf8_next(piece, offset);
    const std::string_view character = piece.substr(begin, offset - begin);
    const uint32_t id = code_point < 128 ? ascii_ids_[code_point] : vocab_.find(character);
    if (id != kNoId) {
      if (pending_unk) ids.push_back(header_.unk_id);
      pending_unk = false;
      ids.push_back(id);
      continue;
    }
    if (header_.byte_fallback && add_fallback_bytes(character, ids)) continue;
    if (header_.unk_id != kNoId) {
      if (pending_unk && !header_.fuse_unk) ids.push_back(header_.unk_id);
      pending_unk = true;
    }
  }
  if (pending_unk) ids.push_back(header_.unk_id);
}

void Bpe::merge_short(std::vector<uint32_t>& ids) const {
  size_t n_symbols = ids.size();
  std::array<Merge, kShortSymbols> merges;  // merges[i] joins symbol i with the next one
  for (size_t i = 0; i + 1 < n_symbols; ++i) merges[i] = merges_.find(ids[i], ids[i + 1]);
  while (n_symbols > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n_symbols; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoId) break;
    ids[best] = merges[best].id;
    const auto at = static_cast<ptrdiff_t>(best);
    const auto end = static_cast<ptrdiff_t>(n_symbols);
    std::move(ids.begin() + at + 2, ids.begin() + end, ids.begin() + at + 1);
    std::move(merges.begin() + at + 1, merges.begin() + end - 1, merges.begin() + at);
    --n_symbols;
    if (best > 0) merges[best - 1] = merges_.find(ids[best - 1], ids[best]);
    if (best + 1 < n_symbols) merges[best] = merges_.find(ids[best], ids[best + 1]);
  }
  ids.resize(n_symbols);
}

void Bpe::merge_long(PieceScratch& scratch) const {
  std::vector<uint32_t>& ids = scratch.ids;
  std::vector<Merge>& merges = scratch.merges;
  std::vector<uint64_t>& heap = scratch.heap;
  const size_t n_symbols = ids.size();
  merges.assign(n_symbols, Merge{});
  scratch.next.resize(n_symbols);
  scratch.previous.resize(n_symbols);
  heap.clear();
  const auto key = [](uint32_t rank, size_t position) { return uint64_t{rank} << 32 | position; };
  for (size_t i = 0; i < n_symbols; ++i) {
    scratch.previous[i] = static_cast<int32_t>(i) - 1;
    scratch.next[i] = i + 1 < n_symbols ? static_cast<int32_t>(i) + 1 : -1;
    if (i + 1 == n_symbols) break;
    merges[i] = merges_.find(ids[i], ids[i + 1]);
    if (merges[i].rank != kNoId) heap.push_back(key(merges[i].rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto update = [&](int32_t left) {
    const auto i = static_cast<size_t>(left);
    merges[i] = merges_.find(ids[i], ids[static_cast<size_t>(scratch.next[i])]);
    if (merges[i].rank == kNoId) return;
    heap.push_back(key(merges[i].rank, i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const size_t i = static_cast<size_t>(top & UINT32_MAX);
    // An entry is stale when its pair has changed since; dead symbols have rank kNoId.
    if (merges[i].rank != static_cast<uint32_t>(top >> 32)) continue;
    const auto right = static_cast<size_t>(scratch.next[i]);
    ids[i] = merges[i].id;
    merges[i] = Merge{};
    merges[right] = Merge{};
    ids[right] = kNoId;
    scratch.next[i] = scratch.next[right];
    if (scratch.next[i] >= 0) {
      scratch.previous[static_cast<size_t>(scratch.next[i])] = static_cast<int32_t>(i);
      update(static_cast<int32_t>(i));
    }
    if (scratch.previous[i] >= 0) update(scratch.previous[i]);
  }
  std::erase(ids, kNoId);
}

}  // namespace edge
